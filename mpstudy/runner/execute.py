"""Execute one notebook and turn it into a result: the unit of work from its start to its last move."""

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from .. import __version__
from ..errors import StudyError
from ..store.reach import Library
from . import machine
from .fingerprint import differences, fingerprint, identity
from .kernel import environment_of, execute_notebook
from .named import needs_hub
from .pages import write_notebook_page
from .profiles import Run
from .publish import clean_notebook, publish
from .status import tables_digest

SCHEMA = 2
_READING = threading.Lock()  # `ast` of Python 3.11 cannot parse in two threads at once


def execute(
    run: Run,
    home: Path,
    work: Path,
    known: dict,
    expected: float,
    environment: dict[str, str],
) -> None:
    """Run ``run`` and put notebook, page, figures, tables and at last ``results/<run>.json`` into ``home``.

    ``work`` is an empty folder on the same disk; ``expected`` is the estimate in seconds; ``environment`` is
    added to the kernel's; ``known`` is what the result depends on, threads among it. Raises StudyError if the notebook
    fails, or where what it depends on changes meanwhile; what it did so far then stays in ``work``.
    """
    _check_unchanged(run, known)
    context = {
        "run": run.name,
        "profile": home.name,
        "work": str(work),
        "reports": str(home),
        "parameters": run.parameters,
    }
    (work / "context.json").write_text(json.dumps(context), encoding="utf-8")
    needs = {name: tables_digest(home, name) for name in run.needs}
    threads = known["threads"]

    before = {
        "mpstudy": __version__,
        "packages": known["versions"],
        **machine.describe(),
        "threads": threads,
        "git": machine.git_revision(),
    }
    started, begin = datetime.now(UTC), time.monotonic()
    execute_notebook(run, work, environment_of(work, threads, needs_hub(run.parameters)) | environment)
    seconds = time.monotonic() - begin
    _check_unchanged(run, known)
    if not (work / "partial.json").is_file():
        raise StudyError(f"{run.name}: the notebook ended without `run.finish()`")

    clean_notebook(work / "notebook.ipynb", work / f"{run.name}.ipynb", home, run.parameters)
    write_notebook_page(work / f"{run.name}.ipynb", work / f"{run.name}.html")
    recorded = json.loads((work / "partial.json").read_text(encoding="utf-8"))
    measured = {
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 1),
        "estimate_minutes": round(expected / 60, 2) or None,
        "stages": recorded["stages"],
        "peak_memory_gb": recorded["peak_memory_gb"],
        **(recorded["torch"] or {}),
    }
    result = {
        "schema": SCHEMA,
        "run": run.name,
        "notebook": run.notebook.stem,
        "profile": home.name,
        "fingerprint": fingerprint(known),
        "identity": known,
        "needs": needs,
        "parameters": run.parameters,
        "seeds": run.parameters.get("seeds", []),
        "tables": recorded["tables"],
        "provenance": before | measured,
    }
    publish(run, work, home, result)


def _check_unchanged(run: Run, known: dict) -> None:
    """StudyError where the code or anything else is not what it was when the runner read it, so that nobody could say
    which of the two a result belongs to.
    """
    with _READING:
        now = identity(run, known["threads"], known["needs"], Library())
    if changed := differences(known, now):
        raise StudyError(f"{run.name}: {changed[0]}, while the runner was at work; run it again")
