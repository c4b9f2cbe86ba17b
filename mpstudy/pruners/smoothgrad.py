"""SmoothGrad: first-order scores with the mean gradient over noisy copies of the weights, and no prox.

The ablation between Taylor (no noise) and Moreau (prox): ``grad L_sigma(w) = E_u grad L(w + u)`` by Monte Carlo.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ..gradients.shifted import Noise, ShiftedLoss
from ..registry import GREEN, Look
from ..structure.scores import Scores, first_order_scores
from ..structure.units import Units
from .registry import PRUNERS


@PRUNERS.register("smoothgrad", look=Look("smoothgrad", GREEN, "D"), near_taylor=True)
def smoothgrad(
    model: nn.Module,
    batches: Sequence[torch.Tensor],
    units: Units,
    *,
    seed: int = 0,
    sigma: float = 0.05,
    noise: str = "relative",
    steps: int = 10,
) -> Scores:
    """Mean gradient over ``steps`` draws of ``u``; relative noise has standard deviation ``sigma * |w|`` per weight."""
    draws = [Noise(sigma, noise, (seed, step)) if sigma else None for step in range(steps)]
    gradients: dict[str, torch.Tensor] = {}
    loss = ShiftedLoss(model, batches, units, draws)(None, gradients.update)
    settings = {"sigma": sigma, "noise": noise, "steps": steps, "seed": seed}
    meta = {"pruner": "smoothgrad", "loss": loss, "gradients": steps * len(batches)} | settings
    return first_order_scores(units, units.parameters(model), gradients, meta)
