"""The settings of LoRA recovery, apart from the training so that they can be checked without importing PEFT."""

import math
from dataclasses import dataclass, fields

from .errors import StudyError


@dataclass(frozen=True)
class Recipe:
    """Settings of LoRA recovery; the defaults are LLM-Pruner's."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.05
    lr: float = 1e-4
    epochs: int = 2
    batch_size: int = 64  # rows per optimiser step
    micro_batch_size: int = 4  # rows per backward pass: bounds memory
    warmup_steps: int = 100
    cutoff: int = 256  # tokens per example

    def __post_init__(self):
        for field in fields(self):
            value, lowest = (
                getattr(self, field.name),
                0 if field.name in ("dropout", "warmup_steps") else None,
            )
            wrong = isinstance(value, bool) or not isinstance(value, (int, field.type)) or not math.isfinite(value)
            if wrong or (value < 0 if lowest == 0 else value <= 0) or (field.name == "dropout" and value >= 1):
                allowed = "in [0, 1)" if field.name == "dropout" else ">= 0" if lowest == 0 else "> 0"
                raise StudyError(
                    f"recovery setting {field.name} must be a finite {field.type.__name__} {allowed}, not {value!r}"
                )

    def steps(self, rows: int) -> int:
        """Optimiser steps of a training on ``rows`` examples; a warm-up that is no shorter is a :class:`StudyError`."""
        steps = self.epochs * math.ceil(rows / self.batch_size)
        if self.warmup_steps >= steps:
            raise StudyError(f"warmup_steps {self.warmup_steps} must be below the {steps} steps of {rows} rows")
        return steps
