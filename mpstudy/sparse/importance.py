"""Scores of single weights, as masks: what the structured pruners sum over units, not summed."""

import torch

from .. import pruners
from ..pruners import moreau, taylor
from ..structure.units import Units
from .finite import check_finite
from .registry import ELEMENTWISE


def element_scores(name: str, model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """``|w * g|`` of each prunable weight by parameter name, with g what the score ``name`` takes for the gradient.
    ``settings``: those of the pruner of that name. Weights or scores that are not finite raise :class:`StudyError`.
    """
    gradients = ELEMENTWISE[name].function
    pruners.check_settings(name, settings)
    weights = units.parameters(model)
    _check(name, "weights", weights)
    found = gradients(model, batches, units, **settings)
    scores = {key: (weight * found[key]).abs() for key, weight in weights.items()}
    _check(name, "scores", scores)
    return scores


def _check(method: str, what: str, values: dict[str, torch.Tensor]) -> None:
    for key, value in values.items():
        check_finite(what, value, key.removesuffix(".weight"), method)


@ELEMENTWISE.register("taylor")
def loss_gradients(model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """The gradient of the loss (arXiv 2305.11627, eq. 5)."""
    return taylor.gradients_of(model, batches, units)[1]


@ELEMENTWISE.register("moreau")
def envelope_gradients(model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """The gradient of the loss's Moreau envelope (arXiv 2406.07017)."""
    return moreau.envelope_gradients(model, batches, units, moreau.Prox(**settings))[0]
