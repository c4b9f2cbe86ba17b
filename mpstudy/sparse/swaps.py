"""Swaps between a mask's two sides: the pairing by ranks of LLM-Barber (arXiv 2408.10631, section 3.3).

In a pool of weights those that are gone stand by falling score and those that stay by rising one, rank beside rank. A
pair gains where the first scores higher than the second; as the one side falls and the other rises, the pairs that gain
come first.
"""

import torch

from .masks import Target

SCOPES = ("block", "matrix", "row", "column")  # the weights that are paired with each other


def swapped(
    scores: list[torch.Tensor], keeps: list[torch.Tensor], scope: str, share: float, target: Target
) -> list[torch.Tensor]:
    """The masks after the first ``int(gains * share)`` pairs of every pool have changed sides.

    ``scores`` and ``keeps`` (bool, True stays): (rows, columns) each, of the matrices of a block, which is one pool
    under the ``scope`` block; under the others a pool is a matrix, a row or a column. Under n:m the pairs are those of
    a group of m, and the pool is a row, whose pairs come by falling gain: as many enter a group as leave it.
    """
    if target.of:
        return [_in_groups(score, keep, share, target.of) for score, keep in zip(scores, keeps)]
    if scope == "block":
        sizes = [score.numel() for score in scores]
        score, keep = (torch.cat([value.flatten() for value in values])[None] for values in (scores, keeps))
        parts = _in_pools(score, keep, share)[0].split(sizes)
        return [part.view_as(score) for part, score in zip(parts, scores)]
    if scope == "matrix":
        return [_in_pools(s.reshape(1, -1), k.reshape(1, -1), share).view_as(k) for s, k in zip(scores, keeps)]
    if scope == "row":
        return [_in_pools(score, keep, share) for score, keep in zip(scores, keeps)]
    return [_in_pools(score.T, keep.T, share).T for score, keep in zip(scores, keeps)]


def _in_pools(score: torch.Tensor, keep: torch.Tensor, share: float) -> torch.Tensor:
    """The mask (pools, weights) with pairs of each pool swapped."""
    enter, leave, gains = _pairs(score, keep)
    counts = ((gains > 0).sum(-1, keepdim=True).double() * share).floor()
    chosen = torch.arange(score.shape[-1], device=score.device) < counts
    pool = chosen.nonzero()[:, 0]
    new = keep.clone()
    new[pool, enter[chosen]], new[pool, leave[chosen]] = True, False
    return new


def _in_groups(score: torch.Tensor, keep: torch.Tensor, share: float, size: int) -> torch.Tensor:
    """The same for the pairs inside groups of ``size`` neighbours, of which each row swaps the first by their gain."""
    enter, leave, gains = _pairs(score.unflatten(1, (-1, size)), keep.unflatten(1, (-1, size)))
    first = torch.arange(0, score.shape[1], size, device=score.device)[:, None]
    order = gains.flatten(1).sort(dim=-1, descending=True, stable=True)
    counts = ((order.values > 0).sum(-1, keepdim=True).double() * share).floor()
    chosen = torch.arange(score.shape[1], device=score.device) < counts
    row = chosen.nonzero()[:, 0]
    new = keep.clone()
    for side, stays in ((enter, True), (leave, False)):
        places = (side + first).flatten(1).gather(1, order.indices)
        new[row, places[chosen]] = stays
    return new


def _pairs(score: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Along the last dimension the places of what may enter, of what may leave, and the gain of each pair; -inf where
    one side has no more.
    """
    enter = score.masked_fill(keep, -torch.inf).sort(dim=-1, descending=True, stable=True)
    leave = score.masked_fill(~keep, torch.inf).sort(dim=-1, stable=True)
    return enter.indices, leave.indices, enter.values - leave.values
