"""Runs in forked children: the parent has imported what is slow to import, so that a kill meets the work itself."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

TIMEOUT = 600  # seconds; nothing here takes a hundredth of it on a free core


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status (negative: the signal), what it printed, and its seconds."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.status == 0

    @property
    def is_refusal(self) -> bool:
        """Status 2 and one line that begins with ``error:``, and no traceback."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return self.status == 2 and len(errors) == 1 and "Traceback (most recent" not in self.err

    @property
    def last_words(self) -> str:
        lines = [line for line in self.err.splitlines() if line.strip()]
        return f"status {self.status}: {lines[-1][:300] if lines else 'no word'}"


class Child:
    """``work`` in a forked child, which ends with the status that it returns. Its words go to files in ``logs``."""

    def __init__(self, work: Callable[[], int | None], logs: Path):
        self.files = [logs / "stdout", logs / "stderr"]
        for file in self.files:
            file.unlink(missing_ok=True)
        self.status: int | None = None
        self.seconds, self.begin = 0.0, time.perf_counter()
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if not self.process:
            _be(work, self.files)

    def kill(self) -> Ended:
        """End it by SIGKILL, if it has not ended."""
        if not self.has_ended():
            os.kill(self.process, signal.SIGKILL)
        return self.wait()

    def wait_for_change(self, place: Path, before: set[Path]) -> float:
        """Seconds until something else than ``before`` lies in ``place``, or until the end."""
        while not self.has_ended() and set(place.iterdir()) == before:
            time.sleep(0.0005)
        return time.perf_counter() - self.begin

    def has_ended(self) -> bool:
        if self.status is None:
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                self.status, self.seconds = os.waitstatus_to_exitcode(status), time.perf_counter() - self.begin
        return self.status is not None

    def wait(self) -> Ended:
        """Wait for its end; one that hangs is killed."""
        while not self.has_ended():
            if time.perf_counter() - self.begin > TIMEOUT:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.002)
        out, err = (file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in self.files)
        return Ended(self.status, out, err, self.seconds)


def run(work: Callable[[], int | None], logs: Path) -> Ended:
    """``work`` in a child, to its end."""
    return Child(work, logs).wait()


def command(words: list[str]) -> Callable[[], int]:
    """The work of ``python -m mpstudy`` with these words."""
    from mpstudy.__main__ import main

    return partial(main, words)


def warm() -> None:
    """Import what the children need. No thread may be started here: a fork copies only the one that forks."""
    import nbconvert  # noqa: F401
    import papermill  # noqa: F401

    import mpstudy.evaluation.cost
    import mpstudy.recovery.lora
    import mpstudy.runner.reproduce
    import mpstudy.study  # noqa: F401

    torch.set_num_threads(1)


def _be(work: Callable[[], int | None], files: list[Path]) -> None:
    """Be the child; never returns."""
    status = 1
    try:
        for number, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        status = work() or 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # what Python itself does with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
