"""What a result depends on. Equal fingerprints mean that running again would change nothing.

An *identity* holds: the run's parameters, threads and device, and the instructions of MKL where they are not the
usual ones; its code cells by their syntax, without the prose
between them; the definitions of the library that they reach (:mod:`mpstudy.store.reach`); the inputs that the
parameters name, by content; the versions of the packages that the reached code imports; the fingerprints of the runs
whose results it reads. It is stored with the result, so that :func:`differences` can say what is not the same any more.

``data/published.csv`` is not in it: a new row of published numbers is shown when the tables are made the next time.
"""

import ast
import hashlib
import json
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ..inputs import hub
from ..inputs.content import contents
from ..inputs.names import last_name, model_type
from ..store.reach import Library, Reached, library, texts
from ..store.syntax import Form
from ..store.versions import versions_of
from . import machine
from .named import hub_sources
from .profiles import Run, is_parameters, read_cells

_MAGIC = re.compile(r"^(\s*)([%!].*)$")


def identity(run: Run, threads: int, needs: dict[str, str], code: Library | None = None) -> dict:
    """Everything that ``run`` depends on, as JSON; ``needs`` maps the runs it reads to their fingerprints.

    Folders among the parameters are known by name and content, wherever they lie.
    """
    cells, reached = reach(run, code or library())
    known = {
        "parameters": _portable(run.parameters),
        "threads": threads,
        "device": device(),
        "cells": [cell.digest for cell in cells],
        "definitions": reached.digests(),
        "wiring": reached.wiring(cells),
        "inputs": contents(_models(run), texts(list(run.parameters.values())), reached.strings, hub_sources()),
        "versions": versions_of(reached.packages),
        "needs": needs,
    }
    if instructions := machine.other_bits():
        known["instructions"] = instructions
    return json.loads(json.dumps(known))  # as it is read from a result


def reach(run: Run, code: Library) -> tuple[list[Form], Reached]:
    """The code cells of a run, and what they reach in the library with its parameters."""
    cells = code.cells(code_cells(run.notebook), run.notebook.name)
    families = filter(None, map(model_type, _models(run)))
    return cells, code.reached(cells, [*texts(list(run.parameters.values())), *families])


def _models(run: Run) -> list[str]:
    model = run.parameters.get("model")
    return ([model] if model else []) + run.parameters.get("references", [])


def _portable(value):
    """The value of parameters with every absolute path by its last name, which is the same on all machines."""
    if isinstance(value, dict):
        return {name: _portable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_portable(part) for part in value]
    return last_name(value) if isinstance(value, str) else value


def fingerprint(known: dict) -> str:
    """sha256 of an identity."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two identities of one run, a line each; empty when nothing does.

    A data set of the hub that is not at hand ``now`` is taken for what it was: the library pins its revision, and to
    read a report nobody has to fetch what it is made of.
    """
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
        if not (part == "inputs" and old and _not_at_hand(name, new))
    ]
    lines += [
        f"instructions: {name} {_change(old, new)}"
        for name, old, new in _unequal(*(machine.SAME_BITS | known.get("instructions", {}) for known in (before, now)))
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


def _unequal(before: dict, now: dict) -> list[tuple[str, object, object]]:
    """Names whose values differ, with both values, None where there is none."""
    names = sorted(before.keys() | now.keys())
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _not_at_hand(name: str, digest: str | None) -> bool:
    """Whether an input is a data set of the hub of which no file lies here."""
    return name.startswith("hub ") and digest is not None and not hub.is_of_files(digest)


def _change(old, new) -> str:
    """What became of a value; numbers and short texts are shown."""
    if old is None or new is None:
        return "is new" if old is None else "is gone"
    shown = all(isinstance(value, int | float) or len(str(value)) <= 24 for value in (old, new))
    return f"{old} is now {new}" if shown and not isinstance(old, list) else "changed"


def _plain(source: list[str] | str) -> str:
    """A cell's source; if it is not Python, then with IPython's ``%`` and ``!`` lines as texts that count."""
    text = "".join(source)
    try:
        ast.parse(text)
        return text
    except SyntaxError:
        return "\n".join(_MAGIC.sub(lambda line: f"{line[1]}magic({line[2]!r})", line) for line in text.splitlines())
