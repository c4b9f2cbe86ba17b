"""Exact least squares on a mask, and the reconstruction error ``||(W - W0) X^T||^2`` that it minimises."""

import torch

from .registry import UPDATES

DAMP = 0.01  # of the mean diagonal


@UPDATES.register("exact")
def refit(weight, gram, keep, damp: float = DAMP) -> torch.Tensor:
    """The weights of least reconstruction error on a mask: the closed form for the removal of all others at once
    (multiple removal problem, arXiv 2410.15567): with P the pruned columns of a row, ``dW = -w_P ([H^-1]_PP)^-1
    [H^-1]_P:``. It is computed from the columns S that stay, which is the same: ``H_SS w = (H w0)_S``.
    """
    hessian = gram + damp * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    right = weight @ hessian
    found = torch.zeros_like(weight)
    for row, stays in enumerate(keep):
        columns = stays.nonzero().squeeze(1)
        factor = torch.linalg.cholesky(hessian[columns[:, None], columns])
        found[row, columns] = torch.cholesky_solve(right[row, columns, None], factor).squeeze(1)
    return found


def reconstruction_error(weight, dense, gram) -> float:
    """``||(W - W0) X^T||^2`` over ``||W0 X^T||^2``; 0 for a layer that puts out nothing, before and after."""
    difference = weight - dense
    lost, whole = ((difference @ gram) * difference).sum(), ((dense @ gram) * dense).sum()
    return float(lost / whole) if lost else 0.0
