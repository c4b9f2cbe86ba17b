"""Searches from the command line: they tell how far they are, go on where they stopped, and their mask is pruned."""

import json

import numpy as np
import pytest
from helpers.models import FEW, equal
from helpers.tiny import tiny_folder, tiny_model, tokens

from mpstudy import __main__, pruners
from mpstudy.cli import steps
from mpstudy.structure.plan import make_plan
from mpstudy.structure.scores import Scores
from mpstudy.structure.units import prunable_units

SEARCHES = ["policy-gradient", "evolution"]


@pytest.fixture
def command(tmp_path):
    """Score a tiny model by a search with few steps; the file of scores lies at ``out``."""
    model = tiny_folder(tmp_path / "model")
    np.save(tmp_path / "tokens.npy", tokens(4).numpy())

    def run(pruner: str, *more: str) -> int:
        settings = [word for name, value in FEW[pruner].items() for word in ("--set", f"{name}={value}")]
        given = ["--tokens", str(tmp_path / "tokens.npy"), "--layers", "0-1", "--out", str(tmp_path / "out")]
        return __main__.main(["score", model, "--pruner", pruner, *settings, *more, *given])

    return run


@pytest.mark.parametrize("pruner", SEARCHES)
def test_it_scores_and_its_mask_is_pruned(pruner, command, tmp_path, capsys):
    assert command(pruner) == 0
    out, err = capsys.readouterr()
    total = {"policy-gradient": 2, "evolution": 10}[pruner]
    assert f"step {total} of {total}: loss " in err and f"scored by {pruner} in" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "tokens.npy"]
    model = tiny_model()
    units = prunable_units(model, "0-1")
    expected = pruners.score(pruner, model, [tokens(4)], units, **FEW[pruner])
    found = Scores.load(tmp_path / "out")
    assert equal(found, expected)
    smaller = tmp_path / "smaller"
    words = [
        "prune",
        tmp_path / "model",
        "--scores",
        tmp_path / "out",
        "--ratio",
        0.5,
        "--scope",
        "global",
        "--out",
        smaller,
    ]
    assert __main__.main([str(word) for word in words]) == 0
    removed = json.loads((smaller / "pruned.json").read_text())["meta"]["plan"]["removed"]
    plan = make_plan(expected, units, 0.5, "global")
    assert removed == {key: indices.tolist() for key, indices in plan.removed.items()}


@pytest.mark.parametrize("pruner, stop", [("policy-gradient", 3), ("evolution", 8)])
def test_one_that_was_stopped_goes_on(pruner, stop, command, tmp_path, monkeypatch, capsys):
    more = ["--set", "steps=4"] if pruner == "policy-gradient" else []
    monkeypatch.setattr("mpstudy.pruners.policy_gradient.SAVE_EVERY", 2)
    assert command(pruner, *more) == 0
    whole = Scores.load(tmp_path / "out")
    (tmp_path / "out").unlink()

    class Stopping(steps.Steps):
        def __call__(self, row):
            if row["step"] == stop:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mpstudy.cli.model.Steps", Stopping)
        assert command(pruner, *more) == 130
    assert (tmp_path / "out.state").is_file() and not (tmp_path / "out").exists()
    capsys.readouterr()
    assert command(pruner, *more) == 0
    first = {"policy-gradient": "step 3 of 4", "evolution": "step 7 of 10"}[pruner]
    assert capsys.readouterr().err.startswith(first)
    again = Scores.load(tmp_path / "out")
    assert equal(again, whole) and again.meta == whole.meta and not (tmp_path / "out.state").exists()


def test_what_is_no_state_is_left_alone(command, tmp_path, capsys):
    (tmp_path / "out.state").write_bytes(b"something else")
    assert command("policy-gradient") == 2
    assert "out.state is not a file of state written by mpstudy" in capsys.readouterr().err
    assert (tmp_path / "out.state").read_bytes() == b"something else"


@pytest.mark.parametrize(
    "pruner, setting, message",
    [
        ("policy-gradient", "ratio=1.5", "the pruning ratio must be a number in [0, 1), not 1.5"),
        ("policy-gradient", "masks=1", "masks of pruner 'policy-gradient' must be a whole number of at least 2, not 1"),
        ("evolution", "of=heads", "unknown measure of the ratio 'heads'; known: parameters, units"),
        ("evolution", "population=3", "population of pruner 'evolution' must be at least 5, its parents"),
    ],
)
def test_settings_are_refused_before_the_model_is_loaded(pruner, setting, message, command, monkeypatch, capsys):
    monkeypatch.setattr("mpstudy.inputs.models.load_model", lambda *a, **k: pytest.fail("loaded"))
    assert command(pruner, "--set", setting) == 2
    assert message in capsys.readouterr().err


def test_lines_come_at_the_begin_the_end_and_every_ten_seconds(monkeypatch, capsys):
    clock = iter([100.0, 104.0, 110.0, 112.0, 120.0, 121.0])
    monkeypatch.setattr("mpstudy.cli.steps.time.perf_counter", lambda: next(clock))
    show = steps.Steps()
    for step in (5, 6, 7, 8, 9, 10):
        show({"step": step, "steps": 10, "loss": step / 2})
    assert capsys.readouterr().err.splitlines() == [
        "step 5 of 10: loss 2.5000",
        "step 7 of 10: loss 3.5000; 15 s left",
        "step 9 of 10: loss 4.5000; 5.0 s left",
        "step 10 of 10: loss 5.0000",
    ]


def test_only_searches_take_a_state():
    assert [name for name in pruners.PRUNERS if pruners.goes_on(name)] == SEARCHES
