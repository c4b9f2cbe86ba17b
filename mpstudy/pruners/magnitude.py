"""Magnitude: ``sum |w|^p`` over a unit's coupled slices, without a root (LLM-Pruner's l1 and l2). Needs no data.

``reduction`` makes one number of the coupled layers of a channel: ``sum``, ``mean``, ``max``, ``prod``, ``first``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ..registry import BROWN, SKY, Look
from ..structure.scores import Scores, unit_scores
from ..structure.units import Units
from .registry import PRUNERS


@PRUNERS.register("l1", look=Look("l1", SKY, "v"), needs_data=False)
def l1(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, reduction: str = "sum"
) -> Scores:
    """Sum of ``|w|``; ``batches`` and ``seed`` are not used."""
    return _magnitude(model, units, 1, reduction)


@PRUNERS.register("l2", look=Look("l2", BROWN, "^"), needs_data=False)
def l2(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, reduction: str = "sum"
) -> Scores:
    """Sum of ``w^2``; ``batches`` and ``seed`` are not used."""
    return _magnitude(model, units, 2, reduction)


def _magnitude(model: nn.Module, units: Units, power: int, reduction: str) -> Scores:
    weights = units.parameters(model)
    return unit_scores(units, lambda name: weights[name].float().abs().pow(power), {"pruner": f"l{power}"}, reduction)
