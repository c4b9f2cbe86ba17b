"""Measure all three, one after the other: some minutes on a quiet machine. The tables are printed; ``--out FILE`` also
writes the numbers as JSON, beside the machine that they were measured on.
"""

import argparse
import json
from pathlib import Path

from mpstudy.runner import machine
from mpstudy.store.files import write_atomically

from . import recovery, sparse, steps

PARTS = {"steps": steps.main, "recovery": recovery.main, "sparse": sparse.main}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON")
    options = parser.parse_args(arguments)
    found = {"machine": machine.describe()} | {name: measure() for name, measure in PARTS.items()}
    if options.out:
        write_atomically(options.out, json.dumps(found, indent=1) + "\n")
        print(f"\nnumbers: {options.out}")


if __name__ == "__main__":
    main()
