"""Bias: the mean of what is gone becomes a bias (FLAP: An et al., arXiv 2312.11983, section 3.3)."""

import torch

from ..registry import ORANGE, Look
from .registry import REPAIRS
from .sums import InputSums


@REPAIRS.register("bias", look=Look("bias", ORANGE, "s"), adds_bias=True)
def bias(
    weight: torch.Tensor, sums: InputSums, kept: torch.Tensor, strength: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean input of the removed columns, times their weights."""
    return weight[:, kept], weight[:, ~kept] @ sums.mean[~kept]
