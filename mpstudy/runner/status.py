"""Which finished runs of a profile still belong to the code and data as they are, and why others do not."""

import json
from pathlib import Path

from ..store.reach import Library
from .fingerprint import differences, fingerprint, identity
from .profiles import Profile, Run


def identities(profile: Profile, code: Library | None = None) -> dict[str, dict]:
    """The identity of every run with the library ``code``, by default this one; a run stands behind those it needs."""
    found: dict[str, dict] = {}
    for run in profile.runs:
        needs = {name: fingerprint(found[name]) for name in run.needs}
        found[run.name] = identity(run, profile.threads, needs, code)
    return found


def status(profile: Profile, home: Path, known: dict[str, dict] | None = None) -> list[dict]:
    """For each run of the profile its name (``run``), its ``state`` in the report folder ``home`` (``current``,
    ``stale`` or ``missing``), and the ``reasons``, a line each. What is not current is what the runner executes.

    ``known``: the identities of all runs, where they have been made already. A run is not current while one that it
    needs is not.
    """
    known, states, rows = known or identities(profile), {}, []
    for run in profile.runs:
        result, reasons = load_result(home, run.name), []
        if result is not None:
            reasons = _reasons(run, result, known[run.name], home)
            told = {line.split()[1] for line in reasons if line.startswith("reads: ")}
            waits = [name for name in run.needs if states[name] != "current" and name not in told]
            reasons += [f"reads: {name} is {states[name]}" for name in waits]
        states[run.name] = "missing" if result is None else "stale" if reasons else "current"
        rows.append({"run": run.name, "state": states[run.name], "reasons": reasons})
    return rows


def outdated(profile: Profile, home: Path, known: dict[str, dict] | None = None) -> list[str]:
    """The names of the runs of the profile whose results in ``home`` are not current."""
    return [row["run"] for row in status(profile, home, known) if row["state"] == "stale"]


def _reasons(run: Run, result: dict, now: dict, home: Path) -> list[str]:
    """Why a result is not current, whatever the state of those it reads; empty when it is."""
    if "identity" not in result:
        return ["recorded before results kept what they depend on"]
    reasons = differences(result["identity"], now)
    changed = [name for name in run.needs if result["needs"].get(name) != tables_digest(home, name)]
    reasons += [f"reads: {name} holds other numbers than it did" for name in changed]
    reasons += [f"file: {name} is not there" for name in result["files"] if not (home / name).is_file()]
    return reasons + ["asked for: it is to be executed again"] * again_file(home, run.name).is_file()


def load_result(home: Path, run: str) -> dict | None:
    """The result of a run, ``None`` while there is none."""
    file = result_file(home, run)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def result_file(home: Path, run: str) -> Path:
    """Where the result of a run lies."""
    return home / "results" / f"{run}.json"


def again_file(home: Path, run: str) -> Path:
    """The file that says that a finished run is to be executed again; it survives a kill and goes with the run."""
    return home / "work" / f"{run}.again"


def tables_digest(home: Path, run: str) -> str | None:
    """sha256 over the tables of a result, which is what other runs read of it; ``None`` while there is none."""
    result = load_result(home, run)
    return None if result is None else fingerprint(result["tables"])
