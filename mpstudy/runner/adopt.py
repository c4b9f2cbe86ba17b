"""Results whose code changed without changing what it computes get the new fingerprint, and say so.

The affordable part of a profile is executed by today's code and compared with what the earlier code gave: every
number, timings apart, to the last bit. Runs whose part agrees are *adopted*: they keep their numbers, get today's
identity, and hold beside it the fingerprint they had, the commit they were computed under, and what was checked.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from ..errors import StudyError
from ..store.files import write_atomically
from ..store.paths import PROFILES, REPORTS
from . import pages, prose
from .compare import Cell, compare
from .fingerprint import fingerprint
from .profiles import Profile, Run, load_profile, quick_part
from .reproduce import run_quick
from .status import identities, load_result, reasons_of, result_file, tables_digest


def adopt(
    name: str, *, against: Path | None = None, jobs: int = 1, reports: Path = REPORTS, folder: Path = PROFILES
) -> list[str]:
    """Adopt the stale results of profile ``name`` whose affordable part agrees exactly; returns their runs.

    ``against``: a folder of results of the same part, executed by the earlier code on this machine, for a report that
    was made on another processor, whose last bits differ. Raises StudyError, and changes nothing, where a number
    differs, where parameters, versions or threads are others, or where nothing could be compared.
    """
    profile, home = load_profile(name, folder), Path(reports).resolve() / name
    known = identities(profile)
    stale = [run for run in profile.runs if run.verify is not None and _is_stale(run, known[run.name], home)]
    if not stale:
        print(f"{name}: nothing to adopt; no run with an affordable part is stale")
        return []
    for run in stale:
        _check_same_conditions(load_result(home, run.name), known[run.name])
    part = quick_part(profile)
    fresh = run_quick(profile, Path(reports).resolve(), jobs=jobs)
    checked = {run.name: _checked(run, fresh, Path(against).resolve() if against else home, part) for run in stale}
    for run in stale:
        _stamp(
            run,
            home,
            known[run.name],
            checked[run.name] | {"against": "the part by that code" if against else "the report"},
        )
    prose.refresh(stale, home)
    pages.write_pages(home, profile.description)
    return [run.name for run in stale]


def _is_stale(run: Run, now: dict, home: Path) -> bool:
    result = load_result(home, run.name)
    return result is not None and bool(reasons_of(result, now, home, run.needs))


def _check_same_conditions(result: dict, now: dict) -> None:
    """StudyError unless a result was computed with today's parameters, threads, device and versions."""
    facts = result["provenance"]
    pairs = [("threads", facts["threads"], now["threads"]), ("device", facts["gpu"] or "cpu", now["device"])]
    pairs += [(f"parameter {n}", value, now["parameters"].get(n)) for n, value in result["parameters"].items()]
    pairs += [
        (f"version of {n}", value.partition("+")[0], now["versions"][n])
        for n, value in facts["packages"].items()
        if n in now["versions"]
    ]
    for what, before, today in pairs:
        if before != today:
            raise StudyError(f"{result['run']} cannot be adopted: {what} was {before!r} and is {today!r}; run it again")


def _checked(run: Run, fresh: Path, earlier: Path, part: Profile) -> dict:
    """What the comparison of one run's part found; StudyError where a number differs or none was compared."""
    old, new = load_result(earlier, run.name), load_result(fresh, run.name)
    if old is None:
        raise StudyError(f"{earlier} holds no result of {run.name} to compare with")
    cells = compare(old, new, part.tolerances.exact(), whole=False)
    if different := [cell for cell in cells if cell.status == "outside"]:
        raise StudyError(
            f"{run.name} cannot be adopted: {len(different)} numbers differ, the first {_named(different[0])}"
        )
    equal = sum(cell.status == "equal" for cell in cells)
    if not equal:
        raise StudyError(f"{run.name} cannot be adopted: no number of its part could be compared")
    facts = new["provenance"]
    return {
        "numbers": equal,
        "parameters": {
            n: value for n, value in new["parameters"].items() if value != old["parameters"].get(n) or earlier != fresh
        },
        "cpu": facts["cpu"],
        "revision": facts["git"]["revision"],
    }


def _named(cell: Cell) -> str:
    row = ", ".join(f"{name} {value}" for name, value in cell.row)
    return f"{cell.table}, {row}, {cell.column}: {cell.old} and now {cell.new}"


def _stamp(run: Run, home: Path, now: dict, checked: dict) -> None:
    """Write today's identity into a result, beside what it had."""
    result = load_result(home, run.name)
    entry = {
        "fingerprint": result["fingerprint"],
        "computed_under": result["provenance"]["git"]["revision"],
        "adopted": datetime.now(UTC).date().isoformat(),
        "checked": checked,
    }
    result |= {"fingerprint": fingerprint(now), "identity": now, "schema": 2}
    result["needs"] = {name: tables_digest(home, name) for name in run.needs}
    result["adopted"] = [*result.get("adopted", []), entry]
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(result_file(home, run.name), text + "\n")
