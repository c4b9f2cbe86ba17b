"""Which finished runs of a profile still belong to the code and data as they are, and why others do not."""

import json
from pathlib import Path

from ..store.reach import Library
from .fingerprint import differences, fingerprint, identity
from .profiles import Profile


def identities(profile: Profile, code: Library | None = None) -> dict[str, dict]:
    """The identity of every run with the library ``code``, by default this one; a run stands behind those it needs."""
    found: dict[str, dict] = {}
    for run in profile.runs:
        needs = {name: fingerprint(found[name]) for name in run.needs}
        found[run.name] = identity(run, profile.threads, needs, code)
    return found


def status(profile: Profile, home: Path) -> list[dict]:
    """For each run of the profile its name (``run``), its ``state`` in the report folder ``home`` (``current``,
    ``stale`` or ``missing``), and the ``reasons``, a line each.
    """
    rows = []
    for name, now in identities(profile).items():
        needs = next(run.needs for run in profile.runs if run.name == name)
        result = load_result(home, name)
        reasons = reasons_of(result, now, home, needs) if result else []
        state = "missing" if result is None else "stale" if reasons else "current"
        rows.append({"run": name, "state": state, "reasons": reasons})
    return rows


def reasons_of(result: dict, now: dict, home: Path, needs: tuple[str, ...]) -> list[str]:
    """Why a result is not current; empty when it is."""
    if "identity" not in result:
        return ["recorded before results kept what they depend on"]
    reasons = differences(result["identity"], now)
    if result["needs"] != (read := {name: tables_digest(home, name) for name in needs}):
        changed = sorted(name for name in needs if result["needs"].get(name) != read[name])
        reasons += [f"reads: {name} holds other numbers than it did" for name in changed]
    reasons += [f"file: {name} is not there" for name in result["files"] if not (home / name).is_file()]
    return reasons


def load_result(home: Path, run: str) -> dict | None:
    """The result of a run, ``None`` while there is none."""
    file = result_file(home, run)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def result_file(home: Path, run: str) -> Path:
    """Where the result of a run lies."""
    return home / "results" / f"{run}.json"


def tables_digest(home: Path, run: str) -> str | None:
    """sha256 over the tables of a result, which is what other runs read of it; ``None`` while there is none."""
    result = load_result(home, run)
    return None if result is None else fingerprint(result["tables"])
