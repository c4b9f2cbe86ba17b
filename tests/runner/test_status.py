"""Of each run it is said whether its result is current, and if not, why."""

import json
import shutil
import subprocess
import sys

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.__main__ import main
from mpstudy.runner import fingerprint, profiles
from mpstudy.runner.profiles import load_profile
from mpstudy.runner.status import again_file, status
from mpstudy.store.paths import ROOT


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> TinyStudy:
    """A study of two finished runs, the second of which reads the first."""
    study = TinyStudy(tmp_path_factory.mktemp("study"))
    study.notebook("write", "power = 2.0", "run.table('t', [{'x': power}])")
    study.notebook("read", "power = 1", "run.table('u', run.frame('write', 't').to_dict('records'))")
    study.profile([study.run("write"), study.run("read", needs=["write"])])
    study.report()
    return study


@pytest.fixture
def study(finished, tmp_path) -> TinyStudy:
    """A copy of it that a test may change."""
    for folder in (finished.notebooks, finished.reports):
        shutil.copytree(folder, tmp_path / folder.name)
    copied = TinyStudy.__new__(TinyStudy)
    vars(copied).update(vars(finished))
    copied.notebooks, copied.reports = tmp_path / "notebooks", tmp_path / "reports"
    copied.profiles, copied.home = copied.notebooks / "profiles", copied.reports / "tiny"
    return copied


def rows(study) -> dict[str, dict]:
    found = status(load_profile("tiny", study.profiles), study.home)
    assert all(row.keys() == {"run", "state", "reasons"} for row in found)
    return {row["run"]: row for row in found}


def reasons(study, run: str = "write") -> list[str]:
    row = rows(study)[run]
    assert row["state"] == "stale"
    return row["reasons"]


def change_result(study, run: str, **changes) -> None:
    file = study.home / "results" / f"{run}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_finished_runs_are_current(study):
    assert list(rows(study).values()) == [
        {"run": "write", "state": "current", "reasons": []},
        {"run": "read", "state": "current", "reasons": []},
    ]


def test_a_run_without_a_result_is_missing_and_does_not_make_others_stale_by_its_code(study):
    (study.home / "results" / "write.json").unlink()
    found = rows(study)
    assert found["write"] == {"run": "write", "state": "missing", "reasons": []}
    assert found["read"]["reasons"] == ["reads: write holds other numbers than it did"]


def test_a_study_that_never_ran_is_missing(tmp_path):
    study = TinyStudy(tmp_path)
    study.notebook("write", "power = 2.0", "pass")
    study.profile([study.run("write")])
    assert rows(study)["write"]["state"] == "missing"


def test_changed_parameters_code_and_threads_are_named(study):
    study.profile([study.run("write", parameters={"power": 3.0}), study.run("read", needs=["write"])], threads=2)
    assert reasons(study) == ["parameter: power 2.0 is now 3.0", "threads: 1 is now 2"]
    assert reasons(study, "read") == ["reads: write changed", "threads: 1 is now 2"]
    study.notebook("write", "power = 2.0", "run.table('t', [{'x': power + 1}])")
    assert "notebook: code cell 0 changed" in reasons(study)


def test_other_instructions_than_the_usual_ones_are_named(study, monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "AVX2,STRICT")
    assert rows(study)["write"]["state"] == "current"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert reasons(study) == ["instructions: MKL_CBWR AVX2,STRICT is now COMPATIBLE"]


def test_changed_definitions_inputs_versions_and_devices_are_named(study, monkeypatch):
    known = json.loads((study.home / "results" / "write.json").read_text())["identity"]
    old = known["definitions"] | {"Recorder": ["0" * 16], "gone": ["1"]}
    change_result(study, "write", identity=known | {"definitions": old})
    monkeypatch.setattr(fingerprint, "contents", lambda *names: {"input wiki": "1"})
    monkeypatch.setattr(fingerprint, "versions_of", lambda packages: {"torch": "99.0"})
    monkeypatch.setattr(fingerprint, "device", lambda: "Some GPU")
    found = reasons(study)
    assert {"definition: Recorder changed", "definition: gone is gone", "input: input wiki is new"} <= set(found)
    assert any(line.startswith("version: torch") for line in found)
    assert found[-1].startswith("device: ") and found[-1].endswith("is now Some GPU")


def test_changed_numbers_of_what_a_run_reads_are_named(study):
    table = json.loads((study.home / "results" / "write.json").read_text())["tables"]
    table["t"]["rows"][0]["x"] += 1
    change_result(study, "write", tables=table)
    assert rows(study)["write"]["state"] == "current"
    assert reasons(study, "read") == ["reads: write holds other numbers than it did"]


def test_a_file_that_is_gone_is_named(study):
    (study.home / "write.html").unlink()
    assert reasons(study) == ["file: write.html is not there"]


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda study: None, {}),
        (lambda study: (study.home / "read.html").unlink(), {"read": "stale"}),
        (lambda study: (study.home / "write.html").unlink(), {"write": "stale", "read": "stale"}),
        (lambda study: (study.home / "results/write.json").unlink(), {"write": "missing", "read": "stale"}),
        (lambda study: again_file(study.home, "write").touch(), {"write": "stale", "read": "stale"}),
        (lambda study: study.notebook("write", "power = 2.0", "1"), {"write": "stale", "read": "stale"}),
    ],
    ids=["nothing", "file of a reader", "file of a run that is read", "result", "again", "code"],
)
def test_what_is_not_current_is_what_the_runner_executes(study, damage, expected, monkeypatch):
    executed = []
    monkeypatch.setattr("mpstudy.runner.reproduce.execute", lambda run, *rest: executed.append(run.name))
    damage(study)
    assert {name: row["state"] for name, row in rows(study).items() if row["state"] != "current"} == expected
    assert study.report() == executed == list(expected)


def test_a_run_waits_for_those_it_reads(study):
    (study.home / "write.html").unlink()
    assert reasons(study, "read") == ["reads: write is stale"]


def test_results_of_an_older_form_are_stale(study):
    file = study.home / "results" / "write.json"
    result = json.loads(file.read_text())
    del result["identity"]
    file.write_text(json.dumps(result))
    assert reasons(study) == ["recorded before results kept what they depend on"]


def test_prose_makes_nothing_stale(study):
    path = study.notebooks / "write.ipynb"
    path.write_text(path.read_text().replace("# About write", "# Of write"))
    assert {row["state"] for row in rows(study).values()} == {"current"}


# --- The command ------------------------------------------------------------------------------------------------


@pytest.fixture
def command(study, monkeypatch, capsys):
    """``status`` with these arguments: what it prints."""
    monkeypatch.setattr(
        profiles, "load_profile", lambda name, **more: load_profile(name, study.profiles, **more)
    )  # the command imports it when it runs

    def run(*arguments: str) -> str:
        assert main(["status", "--profile", "tiny", "--reports", str(study.reports), *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_the_command_says_a_line_a_run_and_below_it_a_line_a_reason(study, command):
    assert command() == "write: current\nread: current\n"
    (study.home / "write.html").unlink()
    (study.home / "results" / "read.json").unlink()
    assert command() == "write: stale\n  file: write.html is not there\nread: missing\n"


def test_as_json_it_is_a_list_of_objects(study, command):
    (study.home / "write.html").unlink()
    (study.home / "results" / "read.json").unlink()
    assert json.loads(command("--json")) == [
        {"run": "write", "state": "stale", "reasons": ["file: write.html is not there"]},
        {"run": "read", "state": "missing", "reasons": []},
    ]


def test_an_unknown_profile_is_named(capsys):
    assert main(["status", "--profile", "huge"]) == 2
    assert "unknown profile 'huge'" in capsys.readouterr().err


def test_it_needs_no_heavy_import():
    """torch, transformers and pandas take seconds; what is current can be said without them."""
    code = (
        "import sys\nfrom mpstudy.__main__ import main\nmain(['status', '--profile', 'smoke'])\n"
        "print({'torch', 'transformers', 'pandas', 'IPython', 'nbformat', 'papermill'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
