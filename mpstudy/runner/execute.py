"""Execute one notebook and turn it into a result: the unit of work from its start to its last move."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

from .. import __version__
from ..errors import StudyError
from . import machine
from .fingerprint import fingerprint
from .kernel import environment_of, execute_notebook
from .named import needs_hub
from .pages import write_notebook_page
from .profiles import Run
from .publish import clean_notebook, publish
from .status import tables_digest

SCHEMA = 2


def execute(
    run: Run,
    home: Path,
    work: Path,
    identity: dict,
    threads: int,
    expected: float,
    environment: dict[str, str],
) -> None:
    """Run ``run`` and put notebook, page, figures, tables and at last ``results/<run>.json`` into ``home``.

    ``work`` is an empty folder on the same disk; ``expected`` is the estimate in seconds; ``environment`` is
    added to the kernel's; ``identity`` is what the result depends on. Raises StudyError if the notebook fails; what
    it did so far then stays in ``work``.
    """
    context = {
        "run": run.name,
        "profile": home.name,
        "work": str(work),
        "reports": str(home),
        "parameters": run.parameters,
    }
    (work / "context.json").write_text(json.dumps(context), encoding="utf-8")
    needs = {name: tables_digest(home, name) for name in run.needs}

    before = {
        "mpstudy": __version__,
        "packages": identity["versions"],
        **machine.describe(),
        "threads": threads,
        "git": machine.git_revision(),
    }
    started, begin = datetime.now(UTC), time.monotonic()
    execute_notebook(run, work, environment_of(work, threads, needs_hub(run.parameters)) | environment)
    seconds = time.monotonic() - begin
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
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "needs": needs,
        "parameters": run.parameters,
        "seeds": run.parameters.get("seeds", []),
        "tables": recorded["tables"],
        "provenance": before | measured,
    }
    publish(run, work, home, result)
