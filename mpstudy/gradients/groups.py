"""The groups of the l2,1 term: structural units, or the rows of every tensor as in the released MoreauPruner code.

Each says how the tensors of a block are cut into pieces, which groups a piece belongs to, and how many groups there
are; :func:`mpstudy.gradients.envelope.prox_point` works on piece after piece. :class:`Whole` stands for no groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ..structure.units import Units

Block = dict[str, torch.Tensor]
PIECE = 1 << 18  # elements; few enough to stay in a processor's cache while they are worked on, a GPU takes all


@dataclass(frozen=True)
class Piece:
    """Some rows of a tensor of a block. As ``shape`` = (., groups, .) its middle dimension runs over ``groups``."""

    name: str
    rows: slice
    groups: slice
    shape: tuple[int, int, int]

    def of(self, block: Block) -> torch.Tensor:
        """The piece of a block as a view of three dimensions."""
        return block[self.name][self.rows].view(self.shape)

    def spread(self, factors: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """One factor a group, to multiply the piece with."""
        return factors[self.groups].to(like)[None, :, None]


class Groups(Protocol):
    """What the solver asks of groups."""

    def count(self, block: Block) -> int:
        """How many groups a block has."""

    def pieces(self, block: Block) -> Iterator[Piece]:
        """The pieces of a block, each element in exactly one."""


class Whole:
    """A block as one group, for eta = 0."""

    def count(self, block: Block) -> int:
        return 1

    def pieces(self, block: Block) -> Iterator[Piece]:
        for name, value in block.items():
            for piece in _cut(name, value, 1):
                yield replace(piece, groups=slice(0, 1), shape=(1, 1, -1))


class UnitGroups:
    """The coupled slices of a unit are one group: rows of q, k, v, gate and up, columns of o and down."""

    def __init__(self, units: Units):
        self._slices: dict[str, list] = {}
        for unit_set in units:
            for part in unit_set.slices:
                self._slices.setdefault(part.name, []).append(part)
        self._counts = {name: unit_set.count for unit_set in units for name in unit_set.names}

    def count(self, block: Block) -> int:
        return self._counts[next(iter(block))]

    def pieces(self, block: Block) -> Iterator[Piece]:
        for name, value in block.items():
            for part in self._slices[name]:
                rows = (
                    range(part.start, part.start + self._counts[name] * part.rows_per_unit) if part.dim == 0 else None
                )
                yield from _cut(name, value, part.rows_per_unit, part.dim, rows=rows)


class RowGroups:
    """Every row of every tensor is a group; a bias is one row."""

    def __init__(self, units: Units):
        del units

    def count(self, block: Block) -> int:
        return sum(value.numel() // value.shape[-1] for value in block.values())

    def pieces(self, block: Block) -> Iterator[Piece]:
        first = 0
        for name, value in block.items():
            yield from _cut(name, value, len(value) if value.dim() == 1 else 1, first=first)
            first += value.numel() // value.shape[-1]


def _cut(
    name: str, value: torch.Tensor, width: int, dim: int = 0, first: int = 0, rows: range | None = None
) -> Iterator[Piece]:
    """``rows`` of a tensor, or all, cut into pieces of whole rows; a group is ``width`` rows (``dim`` 0) or columns
    (``dim`` 1) of it.
    """
    rows = rows or range(len(value))
    across, most = value.numel() // len(value), PIECE if value.device.type == "cpu" else value.numel()
    together = width if dim == 0 else 1
    step = max(1, most // (across * together)) * together
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        here = slice(rows.start + start, rows.start + stop)
        if dim == 0:
            groups = slice(first + start // width, first + stop // width)
            yield Piece(name, here, groups, (1, -1, width * across))
        else:
            yield Piece(name, here, slice(0, across // width), (-1, across // width, width))


GROUPS: dict[str, type] = {"units": UnitGroups, "rows": RowGroups}
