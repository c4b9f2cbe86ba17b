"""The command `claims` as a shell calls it."""

import argparse
import json

import pytest
from helpers.tiny_study import TinyStudy, claim, contrast

from mpstudy.cli import claims
from mpstudy.errors import StudyError


def call(*words: str) -> None:
    parser = argparse.ArgumentParser(prog="mpstudy")
    claims.add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["claims", *words])
    arguments.func(arguments)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose results no rule calls stale, with one claim computed and one not."""
    made = TinyStudy(tmp_path)
    made.notebook("write", "seeds = [0, 1, 2]", "pass")
    made.profile([made.run("write")])
    made.claims([claim("a"), claim("bb")])
    made.results("write", contrast("a", 30.0))
    (made.notebooks / "findings.md.j2").write_text('{{ claims["a"].sentence }}')
    for name, path in {"NOTEBOOKS": made.notebooks, "PROFILES": made.profiles, "ROOT": tmp_path}.items():
        monkeypatch.setattr(claims, name, path)
    monkeypatch.setattr("mpstudy.runner.judged.status", lambda profile, home: [])
    return made


def test_the_table_has_a_line_for_each_claim(study, capsys):
    call("--profile", "tiny", "--reports", str(study.reports))
    assert capsys.readouterr().out.splitlines() == [
        "claim  verdict       measured                     claimed  n  p (Holm)  detectable",
        "a      supported     +30.0 [+27.8, +32.2] points  > 0      3  < 0.001",
        "bb     not computed  –                            > 0      –  –",
        "bb: Not computed: write has recorded no contrast bb.",
    ]


def test_json_holds_all_numbers_unrounded(study, capsys):
    call("--profile", "tiny", "--reports", str(study.reports), "--json")
    first, second = json.loads(capsys.readouterr().out)
    assert list(first) == [
        "id", "verdict", "estimate", "low", "high", "n", "unit", "test", "margin", "p", "p_holm", "detectable",
        "primary", "run", "question", "sentence",
    ]  # fmt: skip
    assert (first["estimate"], first["low"], first["n"]) == (30.0, 30 - 4.302653 * 0.5, 3)
    assert second["verdict"] == "not computed" and second["estimate"] is None


def test_write_fills_the_readme_from_the_profile_that_it_quotes(study, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    study.home.rename(study.reports / "laptop")
    call("--write", "--reports", str(study.reports))
    assert "no block of findings, nothing written" in capsys.readouterr().out and readme.read_text() == "# Title\n"
    readme.write_text("<!-- findings -->\n<!-- /findings -->\n")
    call("--write", "--reports", str(study.reports))
    assert "findings of laptop written" in capsys.readouterr().out
    assert readme.read_text() == "<!-- findings -->\nYes: +30.0 [+27.8, +32.2] points, n = 3.\n<!-- /findings -->\n"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--profile", "huge"], "unknown profile 'huge'; known: tiny"),
        (["--profile", "tiny", "--write"], "--write takes no --profile"),
    ],
)
def test_bad_input_is_named(study, words, message):
    with pytest.raises(StudyError, match=message):
        call(*words, "--reports", str(study.reports))


def test_help_is_a_short_manual_with_examples(capsys):
    with pytest.raises(SystemExit):
        call("--help")
    assert "\nexamples:\n  python -m mpstudy claims" in capsys.readouterr().out
