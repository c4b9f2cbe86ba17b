"""ADMM: the reformation of a searched architecture (Shen et al., arXiv 2409.17372, section 3.4)."""

import torch

from ..registry import PINK, Look
from .registry import REPAIRS
from .sums import InputSums

RHO = 1.0  # penalty
ITERATIONS = 30


@REPAIRS.register("admm", look=Look("admm", PINK, "P"), strength=0.0)
def admm(weight: torch.Tensor, sums: InputSums, kept: torch.Tensor, strength: float) -> tuple[torch.Tensor, None]:
    """:func:`solve` in :data:`ITERATIONS` iterations; few of them are a regularisation of their own."""
    return solve(weight, sums, kept, strength, ITERATIONS), None


def solve(weight: torch.Tensor, sums: InputSums, kept: torch.Tensor, strength: float, iterations: int) -> torch.Tensor:
    """``min ||X W'^T - X W^T||^2`` over the W' whose removed columns are zero: a ridge regression, whose matrix is
    factorised once, and the zeros in turn, with multipliers u between them.

    The columns are scaled by the norms of their inputs, so that the penalty is one of their correlations, whatever the
    number of tokens. ``strength`` adds to the Gram matrix, as in :mod:`.least_squares`, to which this converges.
    """
    gram = sums.gram.clone()
    gram.diagonal().add_(strength * gram.diagonal()[kept].mean())
    norms = gram.diagonal().sqrt()
    norms[norms == 0] = 1  # inputs that are always zero
    gram /= norms * norms[:, None]
    w = weight * norms
    right, u = w @ gram, torch.zeros_like(w)
    gram.diagonal().add_(RHO)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))  # well conditioned, by the penalty
    for _ in range(iterations):
        z = (w + u) * kept
        u += w - z
        w = (right + RHO * (z - u)) @ inverse
    return ((w + u) / norms)[:, kept]
