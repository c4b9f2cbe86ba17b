"""Results whose code changed without changing what it computes get today's fingerprint, and say so.

The affordable part of a profile is executed by today's code and compared with what the earlier code gave: every
number, timings apart, to nine digits. Runs whose part agrees are *adopted*: they keep their numbers, get today's
identity, and hold beside it the fingerprint they had, the commit they were computed under, and what was checked.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from ..errors import StudyError
from ..store.files import write_atomically
from ..store.paths import PROFILES, REPORTS
from . import machine, pages, prose
from .claims import load_claims
from .compare import compare
from .execute import SCHEMA
from .fingerprint import differences, fingerprint
from .profiles import Profile, Run, load_profile, quick_part
from .reproduce import locked, run_profile
from .status import identities, load_result, outdated, result_file, status
from .verdict import both, where

# Reasons to be stale of which an exact re-run of a part can say that they change no number.
OF_CODE = re.compile(r"definition: .*|notebook: .*|version: .* is (new|gone)|reads: .* (changed|is stale)")


def adopt(
    name: str, *, against: Path | None = None, jobs: int | None = None, reports: Path = REPORTS, folder: Path = PROFILES
) -> list[str]:
    """Adopt the stale results of profile ``name`` whose affordable part agrees to nine digits; returns their runs.

    ``against``: the report folder of the same part as the report's code executed it on this machine, for a report that
    was made on another processor, whose results of fp32 differ. Raises StudyError, and changes nothing, where a number
    differs, where nothing could be compared, and, before the part is executed, where code is not committed or anything
    but code changed, or code that the part does not reach.
    """
    profile, reports = load_profile(name, folder), Path(reports).resolve()
    home, known = reports / name, identities(profile)
    reasons = {row["run"]: row["reasons"] for row in status(profile, home, known)}
    stale = [run for run in profile.runs if run.quick is not None and reasons[run.name]]
    if not stale:
        print(f"{name}: nothing to adopt: no run with an affordable part is stale")
        return []
    _check_committed()
    part = quick_part(profile)
    fresh, of_part = reports / "reproduced" / part.name, identities(part)
    earlier = Path(against).resolve() if against else home
    if earlier == fresh:
        raise StudyError(f"the part is executed into {fresh}; move what the earlier code gave elsewhere")
    with locked(home):
        beyond = {}
        for name in (run.name for run in stale):
            result = load_result(home, name)
            _check_conditions(result, reasons[name])
            beyond[name] = _beyond(result, known[name], of_part[name])
            if against:
                _check_earlier(result, earlier, of_part[name])
        run_profile(part, fresh.parent, jobs=jobs, computed=fresh / "computed")
        checked = {run.name: _checked(run, earlier, fresh, profile, bool(against)) for run in stale}
        for name, found in checked.items():
            _stamp(name, home, known[name], found | {"beyond": beyond[name]})
            print(f"{name}: adopted, {found['numbers']} numbers equal to nine digits")
        prose.refresh(stale, home)
        pages.write_pages(home, load_claims(profile.notebooks), profile.description, outdated(profile, home, known))
    return [run.name for run in stale]


def _refusal(run: str, why: str) -> StudyError:
    return StudyError(f"{run} cannot be adopted: {why}; run it again")


def _check_committed() -> None:
    if machine.git_revision()["dirty"]:
        raise StudyError(
            "nothing can be adopted: code, notebooks or data have uncommitted changes, so no commit would name the "
            "code that was checked; commit them first"
        )


def _check_conditions(result: dict, reasons: list[str], where: str = "") -> None:
    """StudyError where a result is stale by more than code, for a part says nothing of other parameters, inputs, files
    or numbers that were read; or where it was not computed with the threads that its identity says.
    """
    other = [reason for reason in reasons if not OF_CODE.fullmatch(reason)]
    if not other and (threads := result["provenance"]["threads"]) != result["identity"]["threads"]:
        other = [f"threads: it was computed with {threads}, not {result['identity']['threads']}"]
    if other:
        raise _refusal(result["run"], where + other[0])


def _beyond(result: dict, now: dict, part: dict) -> list[str]:
    """The definitions that the whole run reaches and its part does not, so that they are not checked; StudyError where
    one of them has changed.
    """
    names = sorted(now["definitions"].keys() - part["definitions"].keys())
    before = result["identity"]["definitions"]
    if changed := [name for name in names if before.get(name) != now["definitions"][name]]:
        raise _refusal(result["run"], f"its part does not reach {', '.join(changed)}")
    return names


def _check_earlier(result: dict, earlier: Path, part: dict) -> None:
    """StudyError unless ``earlier`` holds the same ``part``, under the conditions of the report's ``result`` and by its
    code: today's, compared with itself, would always agree.
    """
    run, whole = result["run"], result["identity"]
    old = load_result(earlier, run)
    if old is None or "identity" not in old:
        raise StudyError(f"{earlier} holds no result of {run} to compare with that says what it depends on")
    mine = old["identity"]
    _check_conditions(old, differences(mine, part), f"in {earlier}, ")
    both = mine["definitions"].keys() & whole["definitions"].keys()
    other = [name for name in sorted(both) if mine["definitions"][name] != whole["definitions"][name]]
    other += ["its notebook"] * (mine["cells"] != whole["cells"])
    if other:
        raise _refusal(run, f"{earlier} was made by other code than the report: {other[0]} differs")


def _checked(run: Run, earlier: Path, fresh: Path, profile: Profile, whole: bool) -> dict:
    """What the comparison of a run's part found, ``whole`` with the same part by the earlier code; StudyError where a
    number differs or none was compared.
    """
    old, new = load_result(earlier, run.name), load_result(fresh, run.name)
    cells = compare(old, new, profile.tolerances.to_nine_digits(), whole)
    if different := [cell for cell in cells if cell.status == "outside"]:
        before, now = both(different[0])
        more = f"{len(different)} numbers differ, such as {where(different[0])}: {before} then, {now} now"
        raise _refusal(run.name, more)
    if alone := [cell for cell in cells if cell.status == "unmatched"]:
        more = f"{len(alone)} numbers of its part are not in the report, such as {where(alone[0])}"
        raise _refusal(run.name, more)
    if not (equal := sum(cell.status in ("equal", "within") for cell in cells)):
        raise _refusal(run.name, "no number of its part could be compared")
    return {
        "numbers": equal,
        "part": {name: value for name, value in new["parameters"].items() if value != run.parameters[name]},
        "against": {"report": old["profile"], **_made(old)},
        "by": _made(new),
    }


def _made(result: dict) -> dict:
    """Where a result was computed and under which commit."""
    git = result["provenance"]["git"]
    revision = (git["revision"] or "unknown")[:12] + (" with uncommitted changes" if git["dirty"] else "")
    return {"cpu": result["provenance"]["cpu"], "revision": revision}


def _stamp(run: str, home: Path, now: dict, checked: dict) -> None:
    """Write today's identity into a result, beside what it had."""
    result = load_result(home, run)
    entry = {
        "fingerprint": result["fingerprint"],
        "computed_under": result["provenance"]["git"]["revision"] or "unknown",
        "adopted": datetime.now(UTC).date().isoformat(),
        "checked": checked,
    }
    result |= {"schema": SCHEMA, "fingerprint": fingerprint(now), "identity": now}
    result["adopted"] = [*result.get("adopted", []), entry]
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(result_file(home, run), text + "\n")
