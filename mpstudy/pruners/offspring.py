"""Masks of a given size as a search varies them: over widths of layers, index sets and whole blocks.

A mask says of each unit set which units stay, bool (count,) by key. Over the layers as many units of each kind stay in
one as in all others, and of each set at least one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..structure.units import UnitSet

REDRAWN = 0.2  # the chance of a set to be redrawn in a mutation

Mask = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Offspring:
    """How new masks come from others. ``sets``: those that lose units. ``importance`` of units, by key (count,): what a
    narrower layer loses first, and a wider one regains first.
    """

    sets: Sequence[UnitSet]
    importance: Mapping[str, torch.Tensor]

    def by_importance(self, removed: Mapping[str, int]) -> Mask:
        """The mask without the ``removed`` (their number, by key) least important units of each set."""
        return {
            each.key: _resized(torch.ones(each.count, dtype=torch.bool), -removed[each.key], self.importance[each.key])
            for each in self.sets
        }

    def widened(self, mask: Mask, draw: torch.Generator) -> Mask:
        """``mask`` with other widths: once for each layer a part of its units moves to another, by importance."""
        for kind in self._kinds:
            for _ in range(len(self._of_kind(kind))):
                mask = self._moved(mask, kind, draw)
        return mask

    def mutated(self, parent: Mask, draw: torch.Generator) -> Mask:
        """Some units of a kind move to another layer, or some sets are redrawn, or both. Each set holds 0.8 of the
        units that it has in ``parent``, or all but one of fewer than five.

        How many units of a set are exchanged is drawn evenly. A redraw at random until the overlap is large enough, as
        in the paper, would not end for long index sets, and would exchange the most that is allowed.
        """
        child = parent
        for kind in self._kinds:
            child = self._moved(child, kind, draw) if _below(2, draw) else child
        chosen = torch.rand(len(self.sets), generator=draw) < REDRAWN
        if child is parent and not chosen.any():
            chosen[_below(len(self.sets), draw)] = True
        for each in (each for each, redrawn in zip(self.sets, chosen.tolist()) if redrawn):
            gone = int((parent[each.key] & ~child[each.key]).sum())
            kept = child[each.key]
            least = min(int((parent[each.key] & kept).sum()), int((~kept).sum()))
            most = min(least, _may_change(parent[each.key]) - gone)
            if most > 0:
                child = child | {each.key: _exchanged(kept, parent[each.key], 1 + _below(most, draw), draw)}
        return child

    def crossed(self, first: Mask, second: Mask, draw: torch.Generator) -> Mask:
        """Each block from one of the two at random; then single units leave or return, the least and the most
        important of layers at random, until as many stay as before.
        """
        blocks = dict.fromkeys(each.layer for each in self.sets)
        sources = dict(zip(blocks, torch.randint(2, (len(blocks),), generator=draw).tolist()))
        child = {each.key: (first, second)[sources[each.layer]][each.key] for each in self.sets}
        for kind in self._kinds:
            keys = [each.key for each in self._of_kind(kind)]
            missing = sum(int(first[key].sum()) - int(child[key].sum()) for key in keys)
            room = [int((~child[key]).sum()) if missing > 0 else int(child[key].sum()) - 1 for key in keys]
            places = torch.arange(len(keys)).repeat_interleave(torch.tensor(room))
            taken = places[torch.randperm(len(places), generator=draw)[: abs(missing)]].bincount(minlength=len(keys))
            sign = 1 if missing > 0 else -1
            for key, number in zip(keys, taken.tolist()):
                child[key] = _resized(child[key], sign * number, self.importance[key])
        return child

    @property
    def _kinds(self) -> list[str]:
        return list(dict.fromkeys(each.kind for each in self.sets))

    def _of_kind(self, kind: str) -> list[UnitSet]:
        return [each for each in self.sets if each.kind == kind]

    def _moved(self, mask: Mask, kind: str, draw: torch.Generator) -> Mask:
        """``mask`` with one layer of a kind narrower and another wider by the same number of units."""
        keys = [each.key for each in self._of_kind(kind)]
        if len(keys) < 2:
            return mask
        giver, taker = (keys[index] for index in torch.randperm(len(keys), generator=draw)[:2].tolist())
        room = int(mask[giver].sum()) - 1, int((~mask[taker]).sum())
        most = min(*room, _may_change(mask[giver]), _may_change(mask[taker]))
        if most < 1:
            return mask
        number = 1 + _below(most, draw)
        return mask | {
            giver: _resized(mask[giver], -number, self.importance[giver]),
            taker: _resized(mask[taker], number, self.importance[taker]),
        }


def _may_change(kept: torch.Tensor) -> int:
    """How many of the units of a set a child may lack: a fifth, one at least."""
    return max(1, int(kept.sum()) // 5)


def _below(number: int, draw: torch.Generator) -> int:
    return int(torch.randint(number, (), generator=draw))


def _resized(kept: torch.Tensor, change: int, importance: torch.Tensor) -> torch.Tensor:
    """``kept`` without the least important ``-change`` units, or with the ``change`` most important of the others."""
    if change == 0:
        return kept
    found = kept.clone()
    movable = kept if change < 0 else ~kept
    order = importance.argsort(stable=True, descending=change > 0)
    found[order[movable[order]][: abs(change)]] = change > 0
    return found


def _exchanged(kept: torch.Tensor, parent: torch.Tensor, number: int, draw: torch.Generator) -> torch.Tensor:
    """``kept`` with ``number`` of the units that ``parent`` has also, for as many others."""
    found = kept.clone()
    for movable, value in ((kept & parent, False), (~kept, True)):
        units = movable.nonzero().squeeze(1)
        found[units[torch.randperm(len(units), generator=draw)[:number]]] = value
    return found
