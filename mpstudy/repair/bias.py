"""Bias: the mean of what is gone becomes a bias (FLAP: An et al., arXiv 2312.11983, section 3.3)."""

import torch

from ..registry import ORANGE, Look
from .moments import Moments
from .registry import REPAIRS


@REPAIRS.register("bias", look=Look("bias", ORANGE, "s"), adds_bias=True)
def bias(
    weight: torch.Tensor, moments: Moments, kept: torch.Tensor, strength: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean input of the removed columns, times their weights."""
    return weight[:, kept], weight[:, ~kept] @ moments.mean[~kept]
