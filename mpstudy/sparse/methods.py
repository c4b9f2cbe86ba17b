"""Pruning single weights of a matrix: which go, and how those that stay make up for them.

Every method is a function ``(weight, gram, target, importance) -> weight`` of a linear layer: ``weight`` float32 (rows,
columns), ``gram`` its inputs' Gram matrix ``X^T X``, float32 (columns, columns), ``importance`` of the weights' shape
for those that mask by a score. What is pruned is zero; the argument is not changed. Reconstruction error is
``||(W - W0) X^T||^2`` throughout.
"""

import torch

from .masks import kept

DAMP = 0.01  # of the mean diagonal: what SparseGPT adds to its Hessian
BLOCK = 128  # columns that SparseGPT works on at a time


def magnitude(weight, gram, target, importance=None) -> torch.Tensor:
    """The smallest ``|w|`` of the matrix go."""
    return weight * kept(weight.abs(), target, "matrix")


def wanda(weight, gram, target, importance=None) -> torch.Tensor:
    """In each row the smallest ``|w_ij| * ||x_j||`` go (Sun et al., arXiv 2306.11695, eq. 1)."""
    return weight * kept(wanda_importance(weight, gram), target)


def masked(weight, gram, target, importance) -> torch.Tensor:
    """In each row the weights of smallest ``importance`` go."""
    return weight * kept(importance, target)


def sparsegpt(weight, gram, target, importance=None) -> torch.Tensor:
    """Columns go one after the other, each weight's loss is made up for by the columns after it (Frantar and Alistarh,
    arXiv 2301.00774, algorithm 1). The mask is chosen for :data:`BLOCK` columns at a time, or m, by ``w^2 /
    [H^-1]_jj``.
    """
    weight, rows = weight.clone(), len(weight)
    inverse = _upper_factor_of_inverse(weight, gram)
    for start in range(0, weight.shape[1], BLOCK):
        stop = min(start + BLOCK, weight.shape[1])
        block, root = weight[:, start:stop], inverse[start:stop, start:stop]
        zeros = int(rows * stop * target.sparsity) - int(rows * start * target.sparsity)
        keep = None if target.of else _lowest_loss_goes(block, root, zeros)
        errors = torch.zeros_like(block)
        for j in range(stop - start):
            if target.of and j % target.of == 0:
                group = slice(j, j + target.of)
                chosen = kept(block[:, group].square() / root.diagonal()[group].square(), target)
                keep = chosen if j == 0 else torch.cat([keep, chosen], dim=1)
            errors[:, j] = torch.where(keep[:, j], 0, block[:, j]) / root[j, j]
            block[:, j:] -= errors[:, j, None] * root[None, j, j:]
        block.mul_(keep)
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return weight


def _lowest_loss_goes(block, root, zeros: int) -> torch.Tensor:
    loss = (block.square() / root.diagonal().square()).flatten()
    keep = torch.ones_like(loss, dtype=torch.bool)
    keep[torch.argsort(loss, stable=True)[:zeros]] = False
    return keep.view_as(block)


def _upper_factor_of_inverse(weight, gram) -> torch.Tensor:
    """U with ``U^T U = H^-1`` of the damped Hessian; row j of U belongs to the columns from j on. Inputs that are
    always zero lose their weights.
    """
    hessian = gram.clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    weight[:, dead] = 0
    hessian.diagonal().add_(DAMP * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def wanda_importance(weight, gram) -> torch.Tensor:
    """``|w_ij| * ||x_j||``, of the weight's shape."""
    return weight.abs() * gram.diagonal().clamp_min(0).sqrt()


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
    """``||(W - W0) X^T||^2`` over ``||W0 X^T||^2``."""
    difference = weight - dense
    return float(((difference @ gram) * difference).sum() / ((dense @ gram) * dense).sum())
