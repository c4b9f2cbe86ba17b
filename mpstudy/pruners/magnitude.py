"""Magnitude: ``sum |w|^p`` over a unit's coupled slices, without a root (LLM-Pruner's l1 and l2). Needs no data."""

import torch

from ..scores import Scores
from ..units import reduce_to_units


def l1(model, batches, units, *, seed=0) -> Scores:
    """Sum of ``|w|``; ``batches`` and ``seed`` are not used."""
    return _magnitude(model, units, 1)


def l2(model, batches, units, *, seed=0) -> Scores:
    """Sum of ``w^2``; ``batches`` and ``seed`` are not used."""
    return _magnitude(model, units, 2)


@torch.no_grad()
def _magnitude(model, units, power) -> Scores:
    weights = units.parameters(model)
    values = {}
    for unit_set in units:
        powers = {part.name: weights[part.name].float().abs().pow(power) for part in unit_set.slices}
        values[unit_set.key] = reduce_to_units(unit_set, powers).cpu()
    return Scores(values, {"pruner": f"l{power}"})
