"""Scores: one importance per unit, a plain value that can be saved, compared and plotted."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import tensorfile
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
def first_order_scores(units: Units, weights: dict, gradients: dict, meta: dict) -> Scores:
    """LLM-Pruner's element-wise first-order score: the sum of ``|w * g|`` over each unit's coupled slices.

    ``weights`` and ``gradients`` map parameter names to tensors of equal shape (arXiv 2305.11627, eq. 5, element1).
    """
    values = {}
    for unit_set in units:
        products = {part.name: (weights[part.name] * gradients[part.name]).abs() for part in unit_set.slices}
        values[unit_set.key] = reduce_to_units(unit_set, products).cpu()
    return Scores(values, meta)
