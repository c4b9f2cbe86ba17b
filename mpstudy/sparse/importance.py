"""Scores of single weights, as masks: what the structured pruners sum over units, not summed."""

import torch

from .. import pruners
from ..errors import check_choice
from ..pruners import moreau, taylor
from ..structure.units import Units

ELEMENTWISE = ("taylor", "moreau")


def element_scores(name: str, model, batches, units: Units, **settings) -> dict[str, torch.Tensor]:
    """``|w * g|`` of each prunable weight by parameter name, with g the gradient of the loss (``taylor``, arXiv
    2305.11627, eq. 5) or of its Moreau envelope (``moreau``, arXiv 2406.07017). ``settings``: those of the pruner.
    """
    check_choice("element-wise score", name, ELEMENTWISE)
    pruners.check_settings(name, settings)
    if name == "taylor":
        _, gradients = taylor.gradients_of(model, batches, units)
    else:
        gradients, _ = moreau.envelope_gradients(model, batches, units, moreau.Prox(**settings))
    return {key: (weight * gradients[key]).abs() for key, weight in units.parameters(model).items()}
