"""The groups of the l2,1 term: structural units, or the rows of every tensor as in the released MoreauPruner code.

Both sum over their groups and give a factor a group back to the elements, for :func:`mpstudy.envelope.prox_point`;
:class:`mpstudy.envelope.Whole` stands for no groups.
"""

import torch

from .units import Slice, Units

Block = dict[str, torch.Tensor]


class UnitGroups:
    """The coupled slices of a unit are one group: rows of q, k, v, gate and up, columns of o and down."""

    def parts(self, *blocks: Block):
        """A unit set is not cut: its units have slices in every tensor."""
        yield blocks

    def __init__(self, units: Units):
        self._sets = {frozenset(part.name for part in unit_set.slices): unit_set for unit_set in units}

    def sums(self, d: Block, f: Block) -> torch.Tensor:
        """``<d_g, f_g>`` and ``<f_g, f_g>`` of each unit g of a unit set, float64 (2, count)."""
        unit_set = self._sets[frozenset(d)]
        return sum(_sums(d[p.name], f[p.name], p, unit_set.count) for p in unit_set.slices)

    def spread(self, factors: torch.Tensor, block: Block) -> Block:
        """One factor a unit, shaped to multiply each tensor of ``block``."""
        spread = {}
        for part in self._sets[frozenset(block)].slices:
            like = block[part.name]
            shape = [-1 if dim == part.dim else 1 for dim in range(like.dim())]
            spread[part.name] = factors.to(like).repeat_interleave(part.block).view(shape)
        return spread


class RowGroups:
    """Every row of every tensor is a group; a bias is one row."""

    def parts(self, *blocks: Block):
        """A unit set is not cut."""
        yield blocks

    def __init__(self, units: Units):
        del units

    def sums(self, d: Block, f: Block) -> torch.Tensor:
        """``<d_g, f_g>`` and ``<f_g, f_g>`` of each row g, float64 (2, rows)."""
        return torch.cat([_inner(*_rows(d[name], f[name]), keep=0) for name in d], dim=1)

    def spread(self, factors: torch.Tensor, block: Block) -> Block:
        """One factor a row, shaped to multiply each tensor of ``block``."""
        rows = factors.split([value.numel() // value.shape[-1] for value in block.values()])
        return {name: part.to(value).view(*value.shape[:-1], 1) for (name, value), part in zip(block.items(), rows)}


def _rows(*tensors: torch.Tensor):
    return (tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors)


def _sums(d: torch.Tensor, f: torch.Tensor, part: Slice, count: int) -> torch.Tensor:
    return _inner(*(value.unflatten(part.dim, (count, part.block)) for value in (d, f)), keep=part.dim)


def _inner(d: torch.Tensor, f: torch.Tensor, keep: int) -> torch.Tensor:
    """Both inner products over all dimensions but ``keep``."""
    dims = [dim for dim in range(d.dim()) if dim != keep]
    return torch.stack([(value * f).sum(dim=dims).double() for value in (d, f)])


GROUPS = {"units": UnitGroups, "rows": RowGroups}
