"""Random scores: the floor that every pruner has to beat."""

from collections.abc import Sequence

import torch
from torch import nn

from ..registry import GREY, Look
from ..structure.scores import Scores
from ..structure.units import Units
from .registry import PRUNERS


@PRUNERS.register("random", look=Look("random", GREY, "x"), needs_data=False, draws=True)
def random(model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0) -> Scores:
    """Independent uniform scores; ``batches`` and the weights are not used."""
    generator = torch.Generator().manual_seed(seed)
    values = {unit_set.key: torch.rand(unit_set.count, generator=generator) for unit_set in units}
    return Scores(values, {"pruner": "random", "seed": seed})
