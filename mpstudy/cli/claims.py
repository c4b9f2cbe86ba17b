"""The command that judges the declared claims by the results of a report."""

import json
import os
from pathlib import Path

from ..errors import StudyError
from ..store.paths import NOTEBOOKS, PROFILES, REPORTS, ROOT
from .inputs import add_command, study_command

_CLAIMS = """
Judge the claims of notebooks/claims.yaml by the results of a report.

A line for each claim: its verdict (supported, refuted or not resolved), the
estimate with its 95 % interval, what was claimed, n, the p-value adjusted by
Holm's method over the primary claims (of an exploratory one: its own), and, where
it is not resolved, the difference that this test would find with a probability of
80 %. A claim whose run is missing or stale is "not computed". A claim that names a
profile is read from the report of that one beside it. Executes nothing.

examples:
  python -m mpstudy claims
  python -m mpstudy claims --profile smoke --json
  python -m mpstudy claims --write                     fill README's findings anew
"""


def add_commands(commands) -> None:
    """Add this module's command to an argparse sub-parser collection."""
    parser = add_command(commands, "claims", "judge the declared claims by a report's results", _CLAIMS, _claims)
    parser.add_argument("--profile", help="profile (default: the one README quotes, full if whole, else laptop)")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of all reports (default: reports)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects with all numbers unrounded")
    form.add_argument("--write", action="store_true", help="write README's findings from the results as they lie there")


@study_command
def _claims(options) -> None:
    from ..runner.claims import load_claims
    from ..runner.findings import quoted

    declared = load_claims(NOTEBOOKS)
    profile = options.profile or quoted(declared, options.reports)[0]
    if options.write and options.profile:
        raise StudyError("--write takes no --profile: README quotes `full` where it is whole, and `laptop`")
    if options.write:
        _write(declared, options.reports)
    else:
        _show(declared, profile, options)


def _write(declared, reports: Path) -> None:
    from ..runner.findings import of_readme, write_block

    readme, found = ROOT / "README.md", of_readme(declared, reports)
    written = write_block(readme, found.markdown())
    what = f"findings of {found.profile} written" if written else "no block of findings, nothing written"
    print(f"{os.path.relpath(readme)}: {what}")


def _show(declared, profile: str, options) -> None:
    from ..runner.judged import TERMINAL, judged, stale_claims
    from ..runner.profiles import load_profile
    from ..runner.wording import aligned

    home = options.reports / profile
    rows = judged(declared, home, stale_claims(declared, load_profile(profile, PROFILES), home))
    if options.json:
        print(json.dumps([row.as_json() for row in rows], indent=1, ensure_ascii=False))
        return
    print(aligned([TERMINAL, *(row.line() for row in rows)]))
    for row in rows:
        if row.why:
            print(f"{row.claim.id}: {row.sentence}")
