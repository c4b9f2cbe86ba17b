"""What a result depends on. Equal fingerprints mean that running again would change nothing.

An *identity* holds: the run's parameters, threads and device; its code cells by their syntax, without the prose
between them; the definitions of the library that they reach (:mod:`mpstudy.store.reach`); the inputs that the
parameters name, by content; the versions of the packages that the reached code imports; the fingerprints of the runs
whose results it reads. It is stored with the result, so that :func:`differences` can say what is not the same any more.

``data/published.csv`` is not in it: a new row of published numbers is shown when the tables are made the next time.
"""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ..inputs.content import contents
from ..inputs.names import model_type
from ..store.reach import Library, library, texts
from ..store.versions import versions_of
from .profiles import Run, is_parameters, read_cells


def identity(run: Run, threads: int, needs: dict[str, str], code: Library | None = None) -> dict:
    """Everything that ``run`` depends on, as JSON; ``needs`` maps the runs it reads to their fingerprints."""
    code = code or library()
    models = [run.parameters[name] for name in ("model",) if run.parameters.get(name)]
    models += run.parameters.get("references", [])
    named = set(texts(run.parameters))
    cells = code.cells(code_cells(run.notebook), run.notebook.name)
    reached = code.reached(cells, named | {kind for name in models if (kind := model_type(name))})
    return {
        "parameters": run.parameters,
        "threads": threads,
        "device": device(),
        "cells": [cell.digest for cell in cells],
        "definitions": reached.digests(),
        "wiring": reached.wiring(cells),
        "inputs": contents(models, named, reached.strings),
        "versions": versions_of(reached.packages),
        "needs": needs,
    }


def fingerprint(known: dict) -> str:
    """sha256 of an identity."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two identities of one run, a line each; empty when nothing does."""
    lines = [
        f"{what}: {name} {_change(old, new)}"
        for what, part in (
            ("parameter", "parameters"),
            ("definition", "definitions"),
            ("input", "inputs"),
            ("version", "versions"),
            ("reads", "needs"),
        )
        for name, old, new in _unequal(before[part], now[part])
    ]
    lines += [
        f"{part}: {before[part]} is now {now[part]}" for part in ("threads", "device") if before[part] != now[part]
    ]
    if len(before["cells"]) != len(now["cells"]):
        lines.append(f"notebook: {len(now['cells'])} code cells instead of {len(before['cells'])}")
    else:
        pairs = enumerate(zip(before["cells"], now["cells"], strict=True))
        lines += [f"notebook: code cell {index} changed" for index, (old, new) in pairs if old != new]
    if not lines and before["wiring"] != now["wiring"]:
        lines.append("definition: a name means another definition of the same name")
    return lines


def code_cells(notebook: Path) -> list[str]:
    """The code cells of a notebook as Python, without the cell of parameters, whose values the run records."""
    cells = [cell for cell in read_cells(notebook) if cell["cell_type"] == "code" and not is_parameters(cell)]
    return [_plain(cell["source"]) for cell in cells]


@cache
def device() -> str:
    """The name of the GPU on which kernels compute, or ``cpu``. torch is asked only where there may be one."""
    if version("torch").endswith("+cpu") or not any(Path("/dev").glob("nvidia[0-9]*")):
        return "cpu"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def file_sha256(file: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _unequal(before: dict, now: dict) -> list[tuple[str, object, object]]:
    """Names whose values differ, with both values, None where there is none."""
    names = sorted(before.keys() | now.keys())
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _change(old, new) -> str:
    if old is None or new is None:
        return "is new" if old is None else "is gone"
    shown = all(isinstance(value, int | float) or len(str(value)) <= 24 for value in (old, new))
    return f"{old} is now {new}" if shown and not isinstance(old, list) else "changed"


def _plain(source: list[str] | str) -> str:
    """A cell's source with IPython's ``%`` and ``!`` lines emptied, so that it is Python."""
    lines = "".join(source).splitlines()
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)
