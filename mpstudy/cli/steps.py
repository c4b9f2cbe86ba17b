"""What a command prints while a search goes through its steps."""

import sys
import time

from ..runner.progress import duration

PAUSE = 10  # seconds between two lines


class Steps:
    """Prints the first step of a search, the last, and one every :data:`PAUSE` seconds, with how long the others will
    take. A row has ``step`` (done) of ``steps``, and numbers by name.
    """

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None
        self.printed = 0.0

    def __call__(self, row: dict) -> None:
        now, step, steps = time.perf_counter(), row["step"], row["steps"]
        began = self.first is None
        since, done = self.first = self.first or (now, step)
        if not (began or step == steps or now - self.printed >= PAUSE):
            return
        self.printed = now
        numbers = [f"{name} {value:.4f}" for name, value in row.items() if name not in ("step", "steps")]
        text = f"step {step} of {steps}: {', '.join(numbers)}"
        if done < step < steps:
            text += f"; {duration((now - since) / (step - done) * (steps - step))} left"
        print(text, file=sys.stderr)
