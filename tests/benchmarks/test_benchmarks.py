"""The measurement of a step's cost measures what it says, on a model small enough for a test."""

import pytest

from benchmarks import sparse, steps
from mpstudy.sparse import METHODS

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 64, "vocab_size": 96, "tie_word_embeddings": False,
}  # fmt: skip


def test_the_model_has_the_size_that_is_printed():
    assert steps._parameters() == pytest.approx(97.5e6, rel=2e-3)


@pytest.mark.parametrize("method", steps.METHODS)
def test_every_method_is_measured(monkeypatch, method):
    monkeypatch.setattr(steps, "MODEL", SMALL)
    monkeypatch.setattr(steps, "BATCH", (2, 16))
    row = steps.measure(method)
    assert row["seconds"] > 0 and abs(row["memory"]) < 1000 and row["ratio"] > 0


def test_the_estimate_scales_with_the_model(monkeypatch, capsys):
    rows = {name: {"seconds": 3.0, "ratio": 1.0, "memory": 2.0} for name in steps.METHODS}
    steps._estimate(rows)
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("LLaMA")}
    assert lines["LLaMA-7B"][1] == "13" and lines["LLaMA-7B"][5] == "26" and lines["LLaMA-7B"][7] == "52"
    times = [float(lines[name][9]) for name in ("LLaMA-7B", "LLaMA-13B", "LLaMA-2-70B")]
    assert times[2] / times[0] == pytest.approx(68.977 / 6.738, rel=0.03)


def test_unstructured_methods_stand_beside_each_other(monkeypatch, capsys):
    monkeypatch.setattr(sparse, "SIZE", 24)
    monkeypatch.setattr(sparse, "TOKENS", 100)
    sparse.main()
    lines = [line.rsplit(maxsplit=4) for line in capsys.readouterr().out.splitlines()[3:]]
    assert {line[0] for line in lines} == {*METHODS, "wanda + admm", "wanda + exact"} - {"masked"}
    factorisations = {line[0]: int(line[3]) for line in lines}
    expected = {"magnitude": 0, "wanda": 0, "sparsegpt": 2, "admm": 1, "admm-gradual": 1, "wanda + admm": 1}
    assert factorisations == expected | {"wanda + exact": 24}  # exact least squares: one a row
    errors = {line[0]: float(line[4]) for line in lines}
    assert errors["wanda + exact"] <= errors["wanda + admm"] < errors["wanda"]
