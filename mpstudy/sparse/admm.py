"""ADMM: weights and mask by the alternating direction method of multipliers (Boza, arXiv 2401.02938, algorithms 1, 2).

The columns are scaled by the norms of their inputs, so that the largest weights are those of largest
``|w_ij| * ||x_j||``; then ``min ||(W - W0) X^T||^2`` over the W on a mask is split into a ridge regression, whose
matrix is factorised once, and the mask.
"""

from collections.abc import Callable

import torch

from ..registry import PINK, Look
from .masks import Target, kept
from .registry import METHODS, UPDATES

RHO = 1.0  # penalty
DAMP = 0.1  # of the mean diagonal
ITERATIONS = 20
GRADUAL = 15  # iterations in which the mask grows


@METHODS.register("admm", look=Look("admm", PINK, "P"))
def admm(weight, gram, target, importance=None) -> torch.Tensor:
    """The mask of Wanda, weights by ADMM."""
    return solve(weight, gram, target, gradual=0)


@METHODS.register("admm-gradual", look=Look("admm-gradual", PINK, "X"))
def admm_gradual(weight, gram, target, importance=None) -> torch.Tensor:
    """ADMM whose mask grows over the first :data:`GRADUAL` iterations."""
    return solve(weight, gram, target, gradual=GRADUAL)


@UPDATES.register("admm")
def on_mask(weight, gram, keep) -> torch.Tensor:
    """The weights by ADMM on any mask."""
    return solve(weight, gram, None, gradual=0, keep=keep)


def solve(
    weight: torch.Tensor,
    gram: torch.Tensor,
    target: Target | None,
    *,
    gradual: int,
    iterations: int = ITERATIONS,
    keep: torch.Tensor | None = None,
    log: Callable[[torch.Tensor], None] = lambda weight: None,
) -> torch.Tensor:
    """``weight`` (rows, columns) pruned to ``target``, or on the mask ``keep``.

    In iteration t of the first ``gradual`` the mask has the share ``s (1 - (1 - t / gradual)^3)`` of zeros, those of
    the smallest ``|W + U|``. ``log`` receives the pruned weight after every iteration.
    """
    norms = gram.diagonal().clamp_min(0).sqrt() + 1e-8
    scaled = gram / norms / norms[:, None]
    scaled.diagonal().add_(DAMP * scaled.diagonal().mean())
    w = weight * norms
    right = w @ scaled
    penalised = scaled + RHO * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(penalised))  # well conditioned, by the penalty
    u = torch.zeros_like(w)
    if keep is None and not gradual:
        keep = kept(w.abs(), target)
    for t in range(1, iterations + 1):
        if gradual and t <= gradual:
            keep = kept((w + u).abs(), target.at(target.sparsity * (1 - (1 - t / gradual) ** 3)))
        z = (w + u) * keep
        u += w - z
        w = (right + RHO * (z - u)) @ inverse
        log((w + u) * keep / norms)
    return (w + u) * keep / norms
