"""The commands under test, each on the tiny inputs, and how their outputs are judged."""

import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import children, tiny
from .content import content, leftovers, whole_results
from .row import Row

ROUNDS = 3  # at most so many times is a command given again


@dataclass(frozen=True)
class Command:
    """``words(inputs, out)`` are what a person types after ``mpstudy``; ``out`` is the name of what it writes, or empty
    where it prints its result.
    """

    name: str
    words: Callable[[Path, Path], list]
    out: str = "out"


COMMANDS = {
    command.name: command
    for command in (
        Command("reproduce", lambda inputs, out: [], "reproduced"),  # of a study of its own: see Bench.in_study
        Command(
            "recover",
            lambda inputs, out: [
                inputs / "pruned", "--rows", 48, "--validation", 4, "--epochs", 1, "--batch-size", 1,
                "--cutoff", 512, "--warmup-steps", 2, "--r", 2, "--lr", 0.01, "--out", out,
            ],
        ),
        Command(
            "sparsify",
            lambda inputs, out: [
                inputs / "model", "--method", "sparsegpt", "--sparsity", 0.5, "--layers", "0-1",
                "--tokens", inputs / "tokens.npy", "--out", out,
            ],
        ),
        Command(
            "score",
            lambda inputs, out: [
                inputs / "model", "--pruner", "taylor", "--tokens", inputs / "tokens.npy", "--layers", "0-1",
                "--out", out,
            ],
            "scores.safetensors",
        ),
        Command(
            "prune",
            lambda inputs, out: [
                inputs / "model", "--scores", inputs / "scores.safetensors", "--ratio", 0.5, "--out", out,
            ],
        ),
        Command("export", lambda inputs, out: [inputs / "pruned", "--out", out]),
        Command(
            "evaluate",
            lambda inputs, out: [inputs / "pruned", "--text", inputs / "book.txt", "--window", 32, "--json"],
            "",
        ),
    )
}  # fmt: skip
KILLED = ("reproduce", "recover", "sparsify", "score", "prune", "export")


@dataclass(frozen=True)
class Undisturbed:
    """What a command writes or prints when nothing happens, the seconds that it takes, and those before it begins to
    write.
    """

    content: dict
    seconds: float
    first: float


class Bench:
    """The inputs, a folder of its own for each run, and what the undisturbed commands give."""

    def __init__(self, folder: Path):
        self.folder, self.inputs, self.logs = folder, folder / "inputs", folder / "logs"
        self.inputs.mkdir()
        self.logs.mkdir()
        tiny.make(self.inputs)
        for name, made in (("score", "scores.safetensors"), ("prune", "pruned")):
            self._must(self.work(COMMANDS[name], self.inputs / made))
        self._known: dict[str, Undisturbed] = {}

    @contextmanager
    def place(self, command: Command):
        """``with bench.place(command) as place:`` an empty folder to write into; a report to compare with is there."""
        place = self.folder / "place"
        self.furnish(place, command)
        yield place
        shutil.rmtree(place)

    def furnish(self, place: Path, command: Command) -> None:
        """What a command finds in an empty ``place``."""
        place.mkdir(exist_ok=True)
        if command.name == "reproduce":
            shutil.copytree(self._report(), place / "tiny")

    def work(self, command: Command, out: Path, inputs: Path | None = None) -> Callable[[], int]:
        """The work of ``command`` that writes ``out``, on other ``inputs`` if given."""
        if command.name == "reproduce":
            return self.in_study(self.inputs / "study", command.name, out.parent)
        return children.command([command.name, *map(str, command.words(inputs or self.inputs, out))])

    def in_study(self, study: Path, name: str, reports: Path) -> Callable[[], int]:
        """The work of ``report`` or ``reproduce`` on the notebooks of ``study``."""
        words = [name, "--profile", "tiny", "--reports", str(reports)]
        return partial(_with_study, study, children.command(words))

    def run(self, command: Command, place: Path, inputs: Path | None = None) -> children.Ended:
        return children.run(self.work(command, place / command.out, inputs), self.logs)

    def undisturbed(self, name: str) -> Undisturbed:
        """Of a command, measured when first asked for; it must write the same twice."""
        if name not in self._known:
            first, again = self._measure(COMMANDS[name]), self._measure(COMMANDS[name])
            if first.content != again.content:
                raise RuntimeError(f"{name} does not write the same twice: {differences(first.content, again.content)}")
            self._known[name] = again
        return self._known[name]

    def found(self, command: Command, place: Path, ended: children.Ended | None = None) -> dict:
        """What is there of a command's output, by name; of one that prints, what it printed."""
        return content(place / command.out) if command.out else {"printed": ended.out if ended else ""}

    def is_half(self, command: Command, place: Path) -> bool:
        """Whether an output is there that is not whole."""
        if command.name == "reproduce":
            return not whole_results(place / command.out)
        return bool(command.out) and (place / command.out).exists() and not self.is_done(command, place)

    def is_done(self, command: Command, place: Path) -> bool:
        return self.found(command, place) == self.undisturbed(command.name).content

    def again(self, row: Row, command: Command, place: Path, fault: str) -> None:
        """Give the command again after a ``fault``, and judge what there is at the end. That an output is there and
        whole, so that it says "exists; choose another folder", is as good.
        """
        for _ in range(ROUNDS):
            done = self.is_done(command, place)
            ended = self.run(command, place)
            if ended.is_good or done:
                break
        if not ended.is_good and not (done and ended.is_refusal):
            row.harm("lost", f"{command.name} {fault}: again: {ended.last_words}")
        elif not self.is_done(command, place):
            known = self.undisturbed(command.name).content
            row.harm("differing", f"{command.name} {fault}: {differences(known, self.found(command, place))}")
        self.tidy(row, command, place, fault)

    def tidy(self, row: Row, command: Command, place: Path, fault: str) -> None:
        """Count what still lies beside the output."""
        stays = {"tiny"} if command.name == "reproduce" else set()
        if left := [name for name in leftovers(place, place / command.out) if name not in stays]:
            row.harm("left", f"{command.name} {fault}: {', '.join(left)}")

    def _measure(self, command: Command) -> Undisturbed:
        with self.place(command) as place:
            before = set(place.iterdir())
            child = children.Child(self.work(command, place / command.out), self.logs)
            first = child.wait_for_change(place, before)
            ended = child.wait()
            if not ended.is_good:
                raise RuntimeError(f"{command.name} fails undisturbed: {ended.last_words}")
            return Undisturbed(self.found(command, place, ended), ended.seconds, first)

    def _report(self) -> Path:
        """The report of the tiny study, made when first asked for."""
        reports = self.inputs / "study" / "reports"
        if not reports.is_dir():
            self._must(self.in_study(self.inputs / "study", "report", reports))
        return reports / "tiny"

    def _must(self, work: Callable[[], int]) -> None:
        ended = children.run(work, self.logs)
        if not ended.is_good:
            raise RuntimeError(f"the inputs cannot be made: {ended.err}")


def differences(known: dict, found: dict) -> str:
    """The names whose digests differ."""
    return ", ".join(sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name)))


def _with_study(study: Path, work: Callable[[], int]) -> int:
    """``work`` with the notebooks of ``study`` in the place of the checkout's."""
    from mpstudy.runner import reproduce as module

    for name in ("reproduce", "report"):
        setattr(module, name, partial(getattr(module, name), folder=study / "notebooks" / "profiles"))
    return work()
