"""Dropout that draws its mask from few random numbers.

torch draws one number for each element, which on a CPU takes a seventh of a LoRA step. Here four elements share the 64
bits of one number, 16 bits each, so that the probability is met to 2^-17.
"""

import torch
from torch import nn

LEVELS = 2**16
MOST = 2**63 - 1


class Dropout(nn.Module):
    """In training each element is zero with probability ``p`` in [0, 1), and else divided by 1 - p."""

    def __init__(self, p: float):
        super().__init__()
        self.dropped = min(round(p * LEVELS), LEVELS - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        numbers = torch.randint(-MOST - 1, MOST, (x.numel() // 4 + 1,), device=x.device)
        levels = numbers.view(torch.int16)[: x.numel()].view(x.shape)  # -LEVELS / 2 to LEVELS / 2 - 1
        mask = torch.ge(levels, self.dropped - LEVELS // 2, out=torch.empty_like(x, requires_grad=False))
        return x * mask.mul_(LEVELS / (LEVELS - self.dropped))
