"""Scores of single weights, as masks: what the structured pruners sum over units, not summed."""

import torch

from .. import pruners
from ..pruners import moreau, taylor
from ..structure.units import Units
from .registry import ELEMENTWISE


def element_scores(name: str, model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """``|w * g|`` of each prunable weight by parameter name, with g what the score ``name`` takes for the gradient.
    ``settings``: those of the pruner of that name.
    """
    gradients = ELEMENTWISE[name].function
    pruners.check_settings(name, settings)
    found = gradients(model, batches, units, **settings)
    return {key: (weight * found[key]).abs() for key, weight in units.parameters(model).items()}


@ELEMENTWISE.register("taylor")
def loss_gradients(model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """The gradient of the loss (arXiv 2305.11627, eq. 5)."""
    return taylor.gradients_of(model, batches, units)[1]


@ELEMENTWISE.register("moreau")
def envelope_gradients(model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """The gradient of the loss's Moreau envelope (arXiv 2406.07017)."""
    return moreau.envelope_gradients(model, batches, units, moreau.Prox(**settings))[0]
