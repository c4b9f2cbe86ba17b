"""A disk that is too small, in bytes or in files; then the same command with room."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .commands import COMMANDS, KILLED, Bench
from .row import Row

POSSIBLE = ("unclear", "lost", "half", "differing", "left")
ROOM = {"size": "64m", "nr_inodes": 10_000}
BLOCK = 4096
NEEDED = {"score": (8, 6), "reproduce": (64, 60)}  # blocks and files that a command writes, at most
OTHERS = (400, 20)  # what a checkpoint needs: 1 MB more than its weights are refused before anything is written


def campaign(bench: Bench, rng: random.Random, runs: int = 50, names: tuple[str, ...] = KILLED) -> list[Row]:
    """Let the commands take turns on a small disk; no row where this user may mount none."""
    row = Row("full disk", POSSIBLE)
    with _disk(bench.folder / "disk") as disk:
        if disk is None:
            print("full disk: left out, since only root mounts a file system")
            return []
        print(f"{row.kind}, {runs} times", flush=True)
        for index in range(runs):
            _fill(bench, rng, row, disk, names[index % len(names)], ("size", "nr_inodes")[index // len(names) % 2])
    return [row]


def _fill(bench: Bench, rng: random.Random, row: Row, disk: Path, name: str, limit: str) -> None:
    command, (blocks, files) = COMMANDS[name], NEEDED.get(name, OTHERS)
    _empty(disk)
    _limit(disk, **ROOM)
    bench.furnish(disk, command)
    stat = os.statvfs(disk)
    if limit == "size":
        more = rng.randint(0, blocks)
        _limit(disk, size=(stat.f_blocks - stat.f_bfree + more) * BLOCK or BLOCK)
    else:
        more = rng.randint(0, files)
        _limit(disk, nr_inodes=stat.f_files - stat.f_ffree + more)
    row.tried()
    fault = f"with {more} {'blocks' if limit == 'size' else 'files'} free"
    ended = bench.run(command, disk)
    if not ended.is_good and not ended.is_refusal:
        row.harm("unclear", f"{name} {fault}: {ended.last_words}")
    if bench.is_half(command, disk):
        row.harm("half", f"{name} {fault}")
    _limit(disk, **ROOM)
    bench.again(row, command, disk, fault)


@contextmanager
def _disk(folder: Path) -> Iterator[Path | None]:
    """A file system in memory, mounted at ``folder``."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", _options(ROOM), "tmpfs", folder], capture_output=True)
    try:
        yield None if mounted.returncode else folder
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", folder], check=True)


def _limit(disk: Path, **limits) -> None:
    subprocess.run(["mount", "-o", f"remount,{_options(limits)}", disk], check=True, capture_output=True)


def _options(limits: dict) -> str:
    return ",".join(f"{name}={value}" for name, value in limits.items())


def _empty(disk: Path) -> None:
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
