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
    under the ``scope`` block; under the others a pool is a matrix, a row or a column. Under n:m the pools are rows,
    whose pairs tell how many weights enter and which; in each group of m as many of its lowest then leave.
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
    enter, leave, counts = _pairs(score, keep, share)
    return (keep & ~_marked(leave, counts)) | _marked(enter, counts)


def _in_groups(score: torch.Tensor, keep: torch.Tensor, share: float, size: int) -> torch.Tensor:
    """The same for rows (rows, columns) whose groups of ``size`` neighbours each keep their number."""
    enter, _, counts = _pairs(score, keep, share)
    entering = _marked(enter, counts).unflatten(1, (-1, size))
    kept = keep.unflatten(1, (-1, size))
    lowest = score.unflatten(1, (-1, size)).masked_fill(~kept, torch.inf).argsort(dim=-1, stable=True)
    return ((kept & ~_marked(lowest, entering.sum(-1, keepdim=True))) | entering).flatten(1)


def _marked(order: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """True at the first ``counts`` places of each ``order``, along the last dimension."""
    first = torch.arange(order.shape[-1], device=order.device) < counts
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, first)


def _pairs(score: torch.Tensor, keep: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each pool, along the last dimension: the places of what may enter and of what may leave, in the order of the
    pairs, and how many pairs are swapped.
    """
    enter = score.masked_fill(keep, -torch.inf).sort(dim=-1, descending=True, stable=True)
    leave = score.masked_fill(~keep, torch.inf).sort(dim=-1, stable=True)
    gains = (enter.values > leave.values).sum(-1, keepdim=True)
    return enter.indices, leave.indices, (gains.double() * share).floor()
