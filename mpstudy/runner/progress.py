"""What the runner prints while notebooks execute: an updating line on a terminal, a line a stage in a log."""

import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass
class _Active:
    """A run that executes now, and how far its progress file has been read."""

    file: Path
    begin: float
    offset: int = 0
    stage: dict | None = field(default=None)


class Progress:
    """Follows the progress files of the running notebooks.

    ``estimates`` maps each run that will execute to its expected seconds; ``jobs`` of them run at once.
    """

    def __init__(self, estimates: dict[str, float], jobs: int = 1, stream: TextIO | None = None):
        self.waiting, self.total, self.jobs = dict(estimates), len(estimates), jobs
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self.active: dict[str, _Active] = {}
        self.estimates, self.finished, self.line = dict(estimates), 0, ""

    def begin(self, run: str, file: Path) -> None:
        expected = self.waiting.pop(run)
        self.active[run] = _Active(file, time.monotonic())
        about = f", about {duration(expected)}" if expected else ""
        self._print(f"[{self.total - len(self.waiting)}/{self.total}] {run}: starts{about}")

    def end(self, run: str, outcome: str = "done") -> None:
        self.poll()
        seconds = time.monotonic() - self.active.pop(run).begin
        self.finished += 1
        self._print(f"[{self.finished}/{self.total}] {run}: {outcome} in {duration(seconds)}")

    def poll(self) -> None:
        """Read what the notebooks have written since the last call and show it."""
        for run, active in self.active.items():
            for event in _new_events(active):
                if event["event"] == "end":
                    active.stage = None
                    count = f"{event['done']} in " if event["done"] else ""
                    self._print(f"  {run}: {event['stage']}: {count}{duration(event['seconds'])}")
                else:
                    active.stage = event | {"at": time.monotonic()}
        if self.terminal:
            self._update()

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        self._print(None)

    def remaining_seconds(self) -> float | None:
        """Expected seconds until the whole study is done; None without estimates."""
        if not any(self.estimates.values()):
            return None
        running = [
            max(self.estimates[run] - (time.monotonic() - active.begin), _stage_eta(active.stage) or 0)
            for run, active in self.active.items()
        ]
        return max([*running, 0]) + sum(self.waiting.values()) / self.jobs

    def _update(self) -> None:
        parts = [_describe(run, active) for run, active in self.active.items()]
        left = self.remaining_seconds()
        if left is not None:
            parts.append(f"whole study: {duration(left)} left")
        text = " | ".join(parts)[: shutil.get_terminal_size().columns - 1]
        self.stream.write("\r\x1b[2K" + text)
        self.stream.flush()
        self.line = text

    def _print(self, text: str | None) -> None:
        if self.line:
            self.stream.write("\r\x1b[2K")
            self.line = ""
        if text is not None:
            self.stream.write(text + "\n")
        self.stream.flush()


def _new_events(active: _Active) -> list[dict]:
    """Complete lines that the notebook has added; a half-written last line waits for the next call."""
    if not active.file.is_file():
        return []
    with active.file.open("rb") as file:
        file.seek(active.offset)
        lines = file.read().split(b"\n")[:-1]
    active.offset += sum(len(line) + 1 for line in lines)
    return [json.loads(line) for line in lines]


def _stage_eta(stage: dict | None) -> float | None:
    """Seconds left in a stage whose steps are counted, from the mean time of those done."""
    if not stage or not stage["total"] or not stage["done"]:
        return None
    left = stage["seconds"] / stage["done"] * (stage["total"] - stage["done"])
    return max(0.0, left - (time.monotonic() - stage["at"]))


def _describe(run: str, active: _Active) -> str:
    text = f"{run} {duration(time.monotonic() - active.begin)}"
    if stage := active.stage:
        text += f" · {stage['stage']}"
        if stage["total"]:
            text += f" {stage['done']}/{stage['total']}"
        if (eta := _stage_eta(stage)) is not None:
            text += f", {duration(eta)} left"
    return text


def duration(seconds: float) -> str:
    """Seconds as people say them: ``8.4 s``, ``210 s``, ``12.5 min``, ``3.2 h``."""
    if seconds < 300:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
