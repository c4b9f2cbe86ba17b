"""The study's commands as a shell calls them."""

import argparse
import json
import re

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.cli import parameters, runner
from mpstudy.errors import StudyError
from mpstudy.store.paths import REPORTS


def call(*words: str) -> int:
    """Parse and execute one command line; its exit status."""
    parser = argparse.ArgumentParser(prog="mpstudy")
    runner.add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    return arguments.func(arguments) or 0


@pytest.fixture
def study(tmp_path, monkeypatch):
    made = TinyStudy(tmp_path)
    made.notebook("powers", "seeds = [0, 1]\nrho = 0.5", 'run.table("t", [{"rho": rho, "seeds": len(seeds)}])')
    monkeypatch.setattr(runner, "NOTEBOOKS", made.notebooks)
    return made


@pytest.mark.parametrize("command", ["reproduce", "report", "run", "html", "data"])
def test_help_is_a_short_manual_with_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        call(command, "--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0 and f"\nexamples:\n  python -m mpstudy {command}" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["run", "power"], "unknown notebook 'power'; known: powers"),
        (["run", "powers", "-p", "rho"], "NAME=VALUE, not 'rho'"),
        (["run", "powers", "-p", "rho=[1"], "parameter 'rho' must be a number, such as -p rho=0.5, not '[1'"),
        (["run", "powers", "-p", "seeds=3"], "parameter 'seeds' must be a list, such as -p 'seeds=[0, 1]', not '3'"),
        (["run", "powers", "-p", "seeds=[-1]"], "element 0 of seeds must be a whole number from 0 to 2"),
        (["run", "powers", "-p", "roh=1"], "unknown parameter of powers 'roh'; known: rho, seeds"),
        (["run", "powers", "--name", "a b"], "run name 'a b'"),
        (["run", "powers", "--profile", "huge"], "unknown profile 'huge'"),
        (["reproduce", "--profile", "huge"], "unknown profile 'huge'"),
        (["reproduce", "--seeds", "many"], "seeds must be"),
        (["reproduce", "--seeds", "1000000000"], "a count of seeds must be a whole number from 1 to 10000"),
        (["report", "--jobs", "0"], "--jobs must be a whole number of at least 1, not 0"),
        (["report", "--profile", "huge"], "unknown profile 'huge'"),
        (["html", "--profile", "huge"], "unknown report 'huge'"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(study, words, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        call(*words, "--reports", str(study.reports))
    assert not study.reports.exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("shown=2:4", "2:4"), ("shown=0.6", "0.6"), ("shown='a: b'", "a: b"), ("shown=no", "no"),
        ("sparsities=[2:4,0.6]", ["2:4", "0.6"]), ("mixed=[2:4,0.6, 1_0]", ["2:4", 0.6, "1_0"]),
        ("rho=1", 1.0), ("rho=1e-4", 1e-4), ("flag=false", False), ("seeds=[3, 5]", [3, 5]), ("none=7", 7),
    ],
)  # fmt: skip
def test_a_value_has_the_type_of_its_parameter(study, text, value):
    defaults = "shown = '0.5'\nsparsities = ['0.5']\nmixed = []\nrho = 0.5\nflag = True\nseeds = [0]\nnone = None"
    study.notebook("typed", defaults, "pass")
    (found,) = parameters.read_parameters([text], study.notebooks / "typed.ipynb").values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rho=2:4", "a number, such as -p rho=0.5"), ("rho=1_0", "a number, such as -p rho=0.5"),
        ("flag=yes", "true or false, such as -p flag=true"), ("shown=[a]", "text, such as -p shown=0.6"),
        ("seeds=[0, 2:4]", "a list, such as -p 'seeds=[0, 1, 2]'"), ("seeds=!!int x", "a list, such as -p 'seeds="),
        ("names=a", "a list, such as -p 'names=[\"a\", \"b\"]'"),
    ],
)  # fmt: skip
def test_another_type_is_refused_with_how_the_parameter_is_written(study, text, said):
    defaults = "rho = 0.5\nflag = True\nshown = '0.6'\nseeds = [0, 1, 2, 3]\nnames = ['a', 'b']"
    study.notebook("typed", defaults, "pass")
    with pytest.raises(StudyError, match=re.escape(f"must be {said}")):
        parameters.read_parameters([text], study.notebooks / "typed.ipynb")


@pytest.mark.parametrize("agrees, code", [(True, 0), (False, 1)])
def test_reproduce_exits_with_its_verdict(monkeypatch, agrees, code):
    calls = []
    monkeypatch.setattr("mpstudy.runner.reproduce.reproduce", lambda name, **rest: calls.append((name, rest)) or agrees)
    assert call("reproduce", "--quick", "--seeds", "2", "--only", "x", "--jobs", "3", "--again") == code
    wanted = {"quick": True, "claim": None, "seeds": [0, 1], "only": "x", "jobs": 3, "again": True, "reports": REPORTS}
    assert calls == [("laptop", wanted)]


@pytest.mark.slow
def test_one_notebook_runs_with_parameters_from_the_shell(study, capsys):
    words = ["run", "powers", "-p", "rho=1e-4", "-p", "seeds=[3, 5, 7]", "--reports", str(study.reports)]
    assert call(*words) == 0 and call(*words, "--name", "other") == 0
    for name in ("powers", "other"):
        result = json.loads((study.reports / "custom" / "results" / f"{name}.json").read_text())
        assert result["parameters"] == {"seeds": [3, 5, 7], "rho": 1e-4}
        assert result["tables"]["t"]["rows"] == [{"rho": 1e-4, "seeds": 3}]
    page = study.reports / "custom" / "powers.html"
    page.unlink()
    assert call("html", "--profile", "custom", "--reports", str(study.reports)) == 0
    assert page.is_file() and "other" in page.with_name("index.html").read_text()
