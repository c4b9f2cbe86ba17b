"""SIGKILL at random moments; then the same command again."""

import random
import time

from . import children
from .commands import COMMANDS, KILLED, Bench
from .row import Row

POSSIBLE = ("lost", "half", "differing", "left")


def campaign(bench: Bench, rng: random.Random, kills: int = 100, names: tuple[str, ...] = KILLED) -> list[Row]:
    """Kill each command as often, together ``kills`` times; a row for each."""
    rows = []
    for index, name in enumerate(names):
        row = Row(f"kill: `{name}`", POSSIBLE)
        count = kills // len(names) + (index < kills % len(names))
        print(f"{row.kind}, {count} times", flush=True)
        while row.counts["tried"] < count:
            _kill(bench, rng, row, name, row.counts["tried"] % 2 == 1)
        rows.append(row)
    return rows


def _kill(bench: Bench, rng: random.Random, row: Row, name: str, while_it_writes: bool) -> None:
    """One kill, between the beginning and the end, or else in the part in which files are written. One that comes when
    the command has ended is not counted.
    """
    command, known = COMMANDS[name], bench.undisturbed(name)
    writing = known.seconds - known.first
    with bench.place(command) as place:
        before = set(place.iterdir())
        child = children.Child(bench.work(command, place / command.out), bench.logs)
        if while_it_writes:
            child.wait_for_change(place, before)
        time.sleep(rng.uniform(0, writing if while_it_writes else known.seconds))
        ended = child.kill()
        if ended.status >= 0:
            return
        row.tried()
        fault = f"killed after {ended.seconds:.3f} of {known.seconds:.3f} s"
        if bench.is_half(command, place):
            row.harm("half", fault)
        bench.again(row, command, place, fault)
