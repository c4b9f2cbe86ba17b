"""Results whose code changed without changing what it computes get today's fingerprint, and say so.

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
from .compare import compare
from .execute import SCHEMA
from .fingerprint import fingerprint
from .profiles import Profile, Run, load_profile, quick_part
from .reproduce import run_profile
from .status import identities, load_result, result_file, status, tables_digest
from .verdict import both, where


def adopt(
    name: str, *, against: Path | None = None, jobs: int = 1, reports: Path = REPORTS, folder: Path = PROFILES
) -> list[str]:
    """Adopt the stale results of profile ``name`` whose affordable part agrees exactly; returns their runs.

    ``against``: the report folder of the same part as the earlier code executed it on this machine, for a report that
    was made on another processor, whose last bits differ. Raises StudyError, and changes nothing, where a number
    differs, where parameters, versions or threads are others, or where nothing could be compared.
    """
    profile, reports = load_profile(name, folder), Path(reports).resolve()
    home, known = reports / name, identities(profile)
    states = {row["run"]: row["state"] for row in status(profile, home, known)}
    stale = [run for run in profile.runs if run.quick is not None and states[run.name] == "stale"]
    if not stale:
        print(f"{name}: nothing to adopt: no run with an affordable part is stale")
        return []
    for run in stale:
        _check_same_conditions(load_result(home, run.name), known[run.name])
    part = quick_part(profile)
    run_profile(part, reports / "reproduced", jobs=jobs, computed=reports / "reproduced" / part.name / "computed")
    earlier = Path(against).resolve() if against else home
    fresh = reports / "reproduced" / part.name
    checked = {run.name: _checked(run.name, earlier, fresh, profile, earlier != home) for run in stale}
    for run in stale:
        checked[run.name]["beyond"] = _beyond(
            load_result(home, run.name), known[run.name], load_result(fresh, run.name)
        )
    for run in stale:
        _stamp(run, home, known[run.name], checked[run.name])
        print(f"{run.name}: adopted, {checked[run.name]['numbers']} numbers equal to the last bit")
    prose.refresh(stale, home)
    pages.write_pages(home, profile.description)
    return [run.name for run in stale]


def _check_same_conditions(result: dict, now: dict) -> None:
    """StudyError unless a result was computed with today's parameters, threads, device and versions."""
    facts = result["provenance"]
    pairs = [("threads", facts["threads"], now["threads"]), ("device", facts.get("gpu") or "cpu", now["device"])]
    pairs += [("parameters", result["parameters"], now["parameters"])]
    for package, version in facts["packages"].items():
        if package in now["versions"]:
            pairs.append((f"version of {package}", (version or "").partition("+")[0], now["versions"][package]))
    for what, before, today in pairs:
        if before != today:
            raise StudyError(f"{result['run']} cannot be adopted: {what}: {before!r} then, {today!r} now; run it again")


def _beyond(result: dict, now: dict, part: dict) -> list[str]:
    """The definitions that the whole run reaches and its part does not, so that they were not checked; StudyError where
    one of them is known to have changed.
    """
    names = sorted(now["definitions"].keys() - part["identity"]["definitions"].keys())
    before = result.get("identity", now)["definitions"]
    if changed := [name for name in names if before.get(name) != now["definitions"][name]]:
        raise StudyError(
            f"{result['run']} cannot be adopted: its part does not reach {', '.join(changed)}; run it again"
        )
    return names


def _checked(run: str, earlier: Path, fresh: Path, profile: Profile, whole: bool) -> dict:
    """What the comparison of a run's part found, ``whole`` with the same part by the earlier code; StudyError where a
    number differs or none was compared.
    """
    old, new = load_result(earlier, run), load_result(fresh, run)
    if old is None:
        raise StudyError(f"{earlier} holds no result of {run} to compare with")
    cells = compare(old, new, profile.tolerances.to_the_bit(), whole)
    if different := [cell for cell in cells if cell.status == "outside"]:
        before, now = both(different[0])
        more = f"{len(different)} numbers differ, such as {where(different[0])}: {before} then, {now} now"
        raise StudyError(f"{run} cannot be adopted: {more}; run it again")
    if not (equal := sum(cell.status == "equal" for cell in cells)):
        raise StudyError(f"{run} cannot be adopted: no number of its part could be compared")
    return {
        "numbers": equal,
        "part": {name: value for name, value in new["parameters"].items() if value != _whole(profile, run)[name]},
        "against": {"report": old["profile"], **_made(old)},
        "by": _made(new),
    }


def _made(result: dict) -> dict:
    """Where a result was computed and under which commit."""
    git = result["provenance"]["git"]
    revision = (git["revision"] or "unknown")[:12] + (" with uncommitted changes" if git["dirty"] else "")
    return {"cpu": result["provenance"]["cpu"], "revision": revision}


def _whole(profile: Profile, run: str) -> dict:
    return next(planned.parameters for planned in profile.runs if planned.name == run)


def _stamp(run: Run, home: Path, now: dict, checked: dict) -> None:
    """Write today's identity into a result, beside what it had."""
    result = load_result(home, run.name)
    entry = {
        "fingerprint": result["fingerprint"],
        "computed_under": result["provenance"]["git"]["revision"] or "unknown",
        "adopted": datetime.now(UTC).date().isoformat(),
        "checked": checked,
    }
    result |= {"schema": SCHEMA, "fingerprint": fingerprint(now), "identity": now}
    result["needs"] = {name: tables_digest(home, name) for name in run.needs}
    result["adopted"] = [*result.get("adopted", []), entry]
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(result_file(home, run.name), text + "\n")
