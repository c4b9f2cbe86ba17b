"""Joint removal: all pruned weights of a row at once (Zhao et al., arXiv 2410.15567)."""

import math
from itertools import combinations

import torch

from ..errors import StudyError
from ..registry import BRICK, Look
from .masks import Target, kept
from .refit import DAMP, refit
from .registry import METHODS

MOST = 20_000  # subsets of a group that are compared; 4:8 has 70, 8:16 12,870


@METHODS.register("joint-removal", look=Look("joint-removal", BRICK, "p"))
def joint(weight, gram, target, importance=None) -> torch.Tensor:
    """Of m neighbours those go whose joint removal costs least, ``w_P ([H^-1]_PP)^-1 w_P / 2``, and all that stays in
    the row makes up for all that is gone: :func:`.refit.refit`. A share has groups of one weight, ``w^2 / [H^-1]_jj``,
    ranked in each row. Raises :class:`StudyError` for a pattern of more than :data:`MOST` subsets.
    """
    hessian = gram + DAMP * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    if (subsets := math.comb(target.of, target.keep)) > MOST:
        raise StudyError(
            f"{target.keep}:{target.of} has {subsets:,} subsets a group; joint-removal takes up to {MOST:,}"
        )
    if target.of:
        return refit(weight, gram, _cheapest(weight, inverse, target))
    return refit(weight, gram, kept(weight.square() / inverse.diagonal(), target))


def _cheapest(weight: torch.Tensor, inverse: torch.Tensor, target: Target) -> torch.Tensor:
    """The mask, bool (rows, columns), that keeps n of every m by the joint loss of the m - n others."""
    groups = weight.unflatten(1, (-1, target.of))  # (rows, groups, m)
    starts = torch.arange(0, weight.shape[1], target.of, device=weight.device)
    least = torch.full(groups.shape[:2], torch.inf, dtype=weight.dtype, device=weight.device)
    keep = torch.ones_like(groups, dtype=torch.bool)
    for gone in combinations(range(target.of), target.of - target.keep):
        places = starts[:, None] + torch.tensor(gone, device=weight.device)  # (groups, m - n)
        own = torch.linalg.inv(inverse[places[:, :, None], places[:, None, :]])
        values = groups[:, :, list(gone)]
        loss = torch.einsum("rgi,gij,rgj->rg", values, own, values) / 2
        better = loss < least
        least = torch.where(better, loss, least)
        mask = torch.ones(target.of, dtype=torch.bool, device=weight.device)
        mask[list(gone)] = False
        keep = torch.where(better[:, :, None], mask, keep)
    return keep.flatten(1)
