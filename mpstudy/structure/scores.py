"""Scores: one importance per unit, a plain value that can be saved, compared and plotted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..store import tensorfile
from .units import Units, reduce_to_units


@dataclass(frozen=True)
class Scores:
    """``values``: unit-set key -> float32 tensor (count,), low is removed first. ``meta``: how they were computed."""

    values: dict[str, torch.Tensor]
    meta: dict = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write safetensors with ``meta`` in the metadata."""
        tensorfile.save(path, "scores", self.values, self.meta)

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read what :meth:`save` wrote; a truncated or foreign file raises :class:`StudyError`."""
        return cls(*tensorfile.load(path, "scores"))


@torch.no_grad()
def unit_scores(
    units: Units, importance: Callable[[str], torch.Tensor], meta: dict, reduction: str = "sum", signed: bool = False
) -> Scores:
    """The element-wise ``importance`` of each prunable parameter, reduced to units (:func:`reduce_to_units`).

    ``importance`` gives a tensor of the named parameter's shape; one unit set's are in memory at a time.
    """
    values = {}
    for unit_set in units:
        of_set = {name: importance(name) for name in unit_set.names}
        values[unit_set.key] = reduce_to_units(unit_set, of_set, reduction, signed).cpu()
    return Scores(values, meta)


def first_order_scores(units: Units, weights: dict, gradients: dict, meta: dict, reduction: str = "sum") -> Scores:
    """LLM-Pruner's element-wise first-order score: the sum of ``|w * g|`` over each unit's coupled slices.

    ``weights`` and ``gradients`` map parameter names to tensors of equal shape (arXiv 2305.11627, eq. 5, element1).
    """
    return unit_scores(units, lambda name: (weights[name] * gradients[name]).abs(), meta, reduction)
