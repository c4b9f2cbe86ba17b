"""The settings of LoRA recovery, apart from the training so that they can be checked without importing PEFT."""

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from ..errors import StudyError
from ..parameters import Count, CountOrZero, Flag, NonNegative, Positive, Ratio, checked


@dataclass(frozen=True)
class Recipe:
    """Settings of LoRA recovery; the defaults are LLM-Pruner's (arXiv 2305.11627), and those of its trainer.

    Raises :class:`StudyError` for a value that its type (see :mod:`mpstudy.parameters`) refuses.
    """

    r: Count = 8
    alpha: Count = 16
    dropout: Ratio = 0.05
    lr: Positive = 1e-4
    epochs: Count = 2
    batch_size: Count = 64  # examples per optimiser step, over all processes
    micro_batch_size: Count = 4  # rows per backward pass
    warmup_steps: CountOrZero = 100
    cutoff: Count = 256  # tokens per row, the most that an example may have
    schedule: Literal["linear", "cosine"] = "linear"  # decay of lr to 0 after the warm-up
    optimiser: Literal["adamw", "adamp"] = "adamw"
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    loss_on: Literal["response", "all"] = "response"
    packing: Flag = True  # as many examples in a row as fit, instead of one
    checkpointing: Flag = False  # recompute activations in the backward pass: less memory, a third more time

    def __post_init__(self):
        for name, kind in RULES.items():
            object.__setattr__(self, name, checked(kind, f"recovery setting {name}", getattr(self, name)))

    def steps(self, rows: int) -> int:
        """Optimiser steps of a training on ``rows`` examples; a warm-up that is no shorter is a :class:`StudyError`."""
        steps = self.epochs * math.ceil(rows / self.batch_size)
        if self.warmup_steps >= steps:
            raise StudyError(f"warmup_steps {self.warmup_steps} must be below the {steps} steps of {rows} rows")
        return steps


RULES = get_type_hints(Recipe, include_extras=True)
CHOICES = {name: get_args(kind) for name, kind in RULES.items() if get_origin(kind) is Literal}
