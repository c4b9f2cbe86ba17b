"""Do harm to the commands and count what comes of it: ``python -m benchmarks.faults [--out FILE]``.

Needs the bundled inputs (``make data``) and, to fill a disk, a user who may mount one. The draws follow the seed; when
a kill comes depends on the clock too.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

from mpstudy.runner import machine
from mpstudy.store.files import write_atomically
from mpstudy.store.paths import ROOT, cache_dir

from . import canaries, children, disk, flips, kills, markup, races
from .commands import Bench
from .row import Row, table

BEGIN, END = "<!-- campaign -->", "<!-- /campaign -->"
PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "peft", "accelerate")


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign and print its table; the status is 1 where it found something."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"write the table between {BEGIN} and {END} there")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    begin, environment = time.monotonic(), dict(os.environ)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"PYTHONPATH": str(ROOT), "MPSTUDY_CACHE": str(cache_dir().resolve())}
    children.warm()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows = campaign(Bench(Path(folder)), options.seed)
    os.environ.clear()
    os.environ.update(environment)
    found = f"{about(options.seed, time.monotonic() - begin)}\n\n{table(rows)}"
    print(f"\n{found}")
    for note in (note for row in rows for note in row.notes):
        print(note)
    if options.out:
        write(options.out, found)
    return int(any(row.harms for row in rows))


def campaign(bench: Bench, seed: int) -> list[Row]:
    """A row for each kind of fault. A kind draws from the seed and its name, so that each can be run alone."""
    works: list[Callable[[], list[Row]]] = [
        lambda: [markup.campaign(bench)],
        lambda: [canaries.campaign(bench)],
        lambda: [races.campaign(bench)],
        lambda: flips.campaign(bench, random.Random(f"flips {seed}")),
        lambda: disk.campaign(bench, random.Random(f"disk {seed}")),
        lambda: kills.campaign(bench, random.Random(f"kills {seed}")),
    ]
    rows = []
    for work in works:
        done = work()
        print("\n".join(row.markdown() for row in done), flush=True)
        rows = done + rows
    return rows


def about(seed: int, seconds: float) -> str:
    """When, where and with what the campaign ran."""
    facts = machine.describe()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{date.today()}, {facts['platform']}, {facts['cores']} CPU cores, one thread a process, seed {seed}, "
        f"{seconds / 60:.0f} minutes; Python {facts['python']}, {packages}."
    )


def write(file: Path, text: str) -> None:
    """Put ``text`` between the marks of ``file``."""
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(file, f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
