"""Run the affordable part of a profile again and compare it with the committed results.

Each run that has ``verify`` parameters is executed with them through the same unit of work, in a temporary
folder with an empty cache of computed values. Its rows are joined with the committed rows of the same table
on every column that holds no float (and on float columns whose tolerance is ``exact``); the columns that
have a tolerance in the profile are compared, all others, such as timings, are not.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import StudyError
from ..store.paths import PROFILES, REPORTS
from .profiles import for_verify, load_profile
from .reproduce import result_file, run_profile


@dataclass(frozen=True)
class Comparison:
    """The worst deviation of one column; ``limit`` and ``worst`` are in the unit that ``kind`` names."""

    run: str
    table: str
    column: str
    matched: int
    rows: int
    kind: str
    limit: float
    worst: float

    @property
    def good(self) -> bool:
        return self.worst <= self.limit


def verify(name: str, *, reports: Path = REPORTS, folder: Path = PROFILES, jobs: int = 1) -> bool:
    """Re-run and compare; print the worst deviation of every column, return whether all are within bounds.

    Raises StudyError where there is nothing to compare: no ``verify`` runs, no tolerances, no committed
    result, no matching row.
    """
    profile = for_verify(load_profile(name, folder))
    if not any(tolerance != "exact" for tolerance in profile.tolerances.values()):
        raise StudyError(f"profile {name} states no tolerances, so nothing could be compared")
    committed = {spec.name: _load(result_file(Path(reports) / name, spec.name)) for spec in profile.runs}
    with tempfile.TemporaryDirectory(prefix="mpstudy-verify-") as temporary:
        fresh = Path(temporary) / "reports"
        run_profile(profile, fresh, jobs=jobs, environment={"MPSTUDY_COMPUTED": str(Path(temporary) / "computed")})
        found = [
            line
            for spec in profile.runs
            for line in compare(
                spec.name,
                committed[spec.name]["tables"],
                _load(result_file(fresh / name, spec.name))["tables"],
                profile.tolerances,
            )
        ]
    _print(found)
    return all(line.good for line in found)


def compare(run: str, committed: dict, fresh: dict, tolerances: dict) -> list[Comparison]:
    """Compare the tables of one run; StudyError if not a single row of it could be compared."""
    found = []
    for table, content in fresh.items():
        if table not in committed:
            raise StudyError(f"{run}: the committed result has no table {table!r}")
        found += _compare_table(run, table, committed[table]["rows"], content["rows"], tolerances)
    if not any(line.matched for line in found):
        raise StudyError(f"{run}: no row of the new run matches a committed one, so nothing was compared")
    return found


def _compare_table(
    run: str, table: str, committed: list[dict], fresh: list[dict], tolerances: dict
) -> list[Comparison]:
    bounded = {column: bound for column, bound in tolerances.items() if column in fresh[0] and bound != "exact"}
    if not bounded:
        return []
    keys = _key_columns(committed + fresh, bounded, tolerances)
    known = {}
    for row in committed:
        key = tuple(row.get(column) for column in keys)
        if key in known:
            raise StudyError(
                f"{run}, table {table}: two committed rows share {dict(zip(keys, key, strict=True))}; "
                f"a float column that tells them apart needs the tolerance `exact`"
            )
        known[key] = row
    pairs = [(known[key], row) for row in fresh if (key := tuple(row.get(column) for column in keys)) in known]
    lines = []
    for column, bound in bounded.items():
        ((kind, limit),) = bound.items()
        worst = max((_deviation(old[column], new[column], kind) for old, new in pairs), default=0.0)
        lines.append(Comparison(run, table, column, len(pairs), len(fresh), kind, limit, worst))
    return lines


def _key_columns(rows: list[dict], bounded: dict, tolerances: dict) -> list[str]:
    """The columns that say which observation a row is."""
    floats = {column for row in rows for column, value in row.items() if isinstance(value, float)}
    return [
        column
        for column in rows[0]
        if column not in bounded and (column not in floats or tolerances.get(column) == "exact")
    ]


def _deviation(old: float | None, new: float | None, kind: str) -> float:
    """Absolute or relative difference; a value missing on one side only is infinitely far away."""
    if old is None or new is None:
        return 0.0 if old is new else float("inf")
    difference = abs(new - old)
    if kind == "abs" or difference == 0:
        return difference
    return difference / abs(old) if old else float("inf")


def _load(file: Path) -> dict:
    if not file.is_file():
        raise StudyError(f"no committed result {file.stem!r} in {file.parent} to compare with")
    return json.loads(file.read_text(encoding="utf-8"))


def _print(lines: list[Comparison]) -> None:
    rows = [("run", "table", "column", "rows", "worst", "allowed", "")]
    for line in lines:
        verdict = "not compared" if not line.matched else "ok" if line.good else "BEYOND"
        worst = f"{line.worst:.2g} {line.kind}" if line.matched else "–"
        rows.append(
            (
                line.run,
                line.table,
                line.column,
                f"{line.matched}/{line.rows}",
                worst,
                f"{line.limit:g}",
                verdict,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
