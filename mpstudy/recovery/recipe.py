"""The settings of LoRA recovery, apart from the training so that they can be checked without importing PEFT."""

import math
from dataclasses import dataclass, fields

from ..errors import StudyError, check_choice

CHOICES = {"optimiser": ("adamw", "adamp"), "schedule": ("linear", "cosine"), "loss_on": ("response", "all")}
FROM_ZERO = ("dropout", "warmup_steps", "weight_decay")


@dataclass(frozen=True)
class Recipe:
    """Settings of LoRA recovery; the defaults are LLM-Pruner's (arXiv 2305.11627), and those of its trainer."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.05
    lr: float = 1e-4
    epochs: int = 2
    batch_size: int = 64  # examples per optimiser step, over all processes
    micro_batch_size: int = 4  # rows per backward pass
    warmup_steps: int = 100
    cutoff: int = 256  # tokens per row, the most that an example may have
    schedule: str = "linear"  # decay of lr to 0 after the warm-up
    optimiser: str = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    loss_on: str = "response"
    packing: bool = True  # as many examples in a row as fit, instead of one
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, a third more time

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in CHOICES:
                check_choice(f"recovery setting {field.name}", value, CHOICES[field.name])
            elif field.type is bool:
                if not isinstance(value, bool):
                    raise StudyError(f"recovery setting {field.name} must be true or false, not {value!r}")
            else:
                _check_number(field, value)

    def steps(self, rows: int) -> int:
        """Optimiser steps of a training on ``rows`` examples; a warm-up that is no shorter is a :class:`StudyError`."""
        steps = self.epochs * math.ceil(rows / self.batch_size)
        if self.warmup_steps >= steps:
            raise StudyError(f"warmup_steps {self.warmup_steps} must be below the {steps} steps of {rows} rows")
        return steps


def _check_number(field, value) -> None:
    wrong = isinstance(value, bool) or not isinstance(value, (int, field.type)) or not math.isfinite(value)
    too_low = wrong or (value < 0 if field.name in FROM_ZERO else value <= 0)
    if too_low or (field.name == "dropout" and value >= 1):
        allowed = "in [0, 1)" if field.name == "dropout" else ">= 0" if field.name in FROM_ZERO else "> 0"
        raise StudyError(
            f"recovery setting {field.name} must be a finite {field.type.__name__} {allowed}, not {value!r}"
        )
