"""The whole study, for real but small: every notebook through the runner, from a shell."""

import json
import os
import subprocess
import sys

import pytest
from helpers.executed import executed, hook

from mpstudy.runner.fingerprint import reach
from mpstudy.runner.profiles import load_profile
from mpstudy.store.paths import ROOT
from mpstudy.store.reach import PACKAGE, Library

pytestmark = pytest.mark.slow


def report(reports, **environment) -> str:
    """Run the smoke profile into ``reports``; its log."""
    command = [sys.executable, "-m", "mpstudy", "report", "--profile", "smoke", "--reports", str(reports)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """A folder into which the kernels write what they call."""
    return hook(tmp_path_factory.mktemp("calls") / "hook", ROOT / PACKAGE)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, calls):
    """The folder of reports and the log of a smoke run that finds nothing computed."""
    reports = tmp_path_factory.mktemp("reports")
    paths = os.pathsep.join([str(calls), str(ROOT)])
    return reports, report(reports, PYTHONPATH=paths, MPSTUDY_COMPUTED=str(reports / "computed"))


def test_every_notebook_gives_a_result(smoke):
    reports, log = smoke
    profile = load_profile("smoke")
    for spec in profile.runs:
        result = json.loads((reports / "smoke" / "results" / f"{spec.name}.json").read_text())
        assert result["parameters"] == spec.parameters and result["profile"] == "smoke"
        assert result["tables"] and all(table["rows"] for table in result["tables"].values())
        assert result["provenance"]["peak_memory_gb"] < 6
        assert all((reports / "smoke" / name).stat().st_size for name in result["files"])
        notebook = json.loads((reports / "smoke" / f"{spec.name}.ipynb").read_text())
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in code if "".join(cell["source"]).strip())
    assert f"{len(profile.runs)} of {len(profile.runs)} runs to execute; about" in log


def test_a_reference_model_stands_beside_the_dense_one(smoke):
    """The reference of the profile is the dense model with its head groups taken apart, which computes the same."""
    result = json.loads((smoke[0] / "smoke" / "results" / "30_lora_recovery.json").read_text())
    for table, value, by in (("quality", "perplexity", "corpus"), ("accuracy", "correct", "task")):
        untrained = [row for row in result["tables"][table]["rows"] if row["rows"] == 0]
        names = ("dense", "smollm2-135m-instruct-ungrouped")
        dense, reference = ({row[by]: row[value] for row in untrained if row["pruner"] == name} for name in names)
        assert dense == reference if value == "correct" else reference == pytest.approx(dense, rel=1e-4)


def test_figures_and_tables_exist_in_every_format(smoke):
    home = smoke[0] / "smoke"
    for folder, first, others in (("figures", "png", ("pdf", "csv")), ("tables", "csv", ("tex", "md"))):
        found = sorted((home / folder).rglob(f"*.{first}"))
        assert found
        for file in found:
            assert all(file.with_suffix(f".{suffix}").stat().st_size for suffix in others), file.name
    page = (home / "index.html").read_text()
    assert all(file.relative_to(home).as_posix() in page for file in (home / "figures").rglob("*.png"))


def test_a_second_run_executes_nothing(smoke):
    reports = smoke[0]
    before = {file: file.stat().st_mtime_ns for file in (reports / "smoke" / "results").iterdir()}
    assert "nothing to do" in report(reports)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_all_that_a_run_executes_is_in_what_it_reaches(smoke, calls):
    """The empirical side of fingerprints: no definition acts on a result that is not part of its identity."""
    library = Library()
    for run in load_profile("smoke").runs:
        ran = executed(calls, run.name, library, ROOT)
        assert ran, run.name
        _, reached = reach(run, library)
        assert ran <= reached.forms.keys(), f"{run.name}: {sorted(ran - reached.forms.keys())}"
