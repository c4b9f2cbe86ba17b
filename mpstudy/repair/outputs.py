"""The output projections of units: o of head groups, down of MLP channels, whatever a family calls them."""

from typing import Any

from torch import nn

from ..structure.hooks import reader
from ..structure.units import Slice, UnitSet


def output_of(model: Any, unit_set: UnitSet) -> tuple[nn.Linear, Slice]:
    """The linear layer that has a unit's channels as its inputs, and the slice of its weight, whose ``dim`` is 1."""
    part = reader(unit_set)
    return model.get_submodule(part.name.rpartition(".")[0]), part
