"""The study's commands as a shell calls them."""

import argparse
import json

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.cli import runner
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
        (["run", "powers", "-p", "rho=[1"], "not valid YAML"),
        (["run", "powers", "-p", "roh=1"], "unknown parameter of powers 'roh'; known: rho, seeds"),
        (["run", "powers", "--name", "a b"], "run name 'a b'"),
        (["run", "powers", "--profile", "huge"], "unknown profile 'huge'"),
        (["reproduce", "--profile", "huge"], "unknown profile 'huge'"),
        (["reproduce", "--seeds", "many"], "seeds must be"),
        (["report", "--profile", "huge"], "unknown profile 'huge'"),
        (["html", "--profile", "huge"], "unknown report 'huge'"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(study, words, message):
    with pytest.raises(StudyError, match=message.replace("[", r"\[")):
        call(*words, "--reports", str(study.reports))
    assert not study.reports.exists()


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
