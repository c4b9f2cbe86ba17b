"""SparseGPT: columns are pruned one after the other, and the later ones make up for it (arXiv 2301.00774)."""

import torch

from ..registry import ORANGE, Look
from .masks import kept
from .registry import METHODS

DAMP = 0.01  # of the mean diagonal: what is added to the Hessian
BLOCK = 128  # columns that share a choice of the mask


@METHODS.register("sparsegpt", look=Look("sparsegpt", ORANGE, "v"))
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
