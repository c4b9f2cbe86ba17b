"""Least squares: the weights that stay are fitted to what the dense ones put out."""

import torch

from ..registry import BLUE, Look
from .registry import REPAIRS
from .sums import InputSums

STRENGTH = 0.3  # of the mean diagonal


@REPAIRS.register("least-squares", look=Look("least-squares", BLUE, "D"), strength=STRENGTH)
def least_squares(
    weight: torch.Tensor, sums: InputSums, kept: torch.Tensor, strength: float
) -> tuple[torch.Tensor, None]:
    """Ridge regression on what is missing: with K the columns that stay, G their inputs' Gram matrix and d its mean
    diagonal, ``W_K + (Y - X_K W_K^T)^T X_K (G_KK + strength d I)^-1``. The missing output is that of the removed
    columns R, so that only Gram matrices are needed: ``(Y - X_K W_K^T)^T X_K = W_R G_RK``.
    """
    gram = sums.gram[kept][:, kept]
    gram.diagonal().add_(strength * gram.diagonal().mean())
    right = weight[:, ~kept] @ sums.gram[~kept][:, kept]
    change = torch.cholesky_solve(right.t(), torch.linalg.cholesky(gram)).t()
    return weight[:, kept] + change, None
