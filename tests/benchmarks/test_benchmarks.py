"""The benchmarks measure what they say, on models small enough for a test."""

import json
from types import SimpleNamespace

import pytest
from helpers.tiny import ROWS, byte_tokenizer, tiny_model

from benchmarks import __main__, estimates, recovery, sparse, steps
from mpstudy.recovery import examples
from mpstudy.sparse import METHODS

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 64, "vocab_size": 96, "tie_word_embeddings": False,
}  # fmt: skip


def test_the_model_has_the_size_that_is_printed():
    assert steps.shape_of(steps.MODEL).parameters == pytest.approx(97.5e6, rel=2e-3)


@pytest.mark.parametrize("method", steps.METHODS)
def test_every_method_is_measured(monkeypatch, method):
    monkeypatch.setattr(steps, "MODEL", SMALL)
    monkeypatch.setattr(steps, "BATCH", (2, 16))
    row = steps.measure(method)
    assert row["seconds"] > 0 and abs(row["memory"]) < 1000 and row["ratio"] > 0


def test_the_estimate_prints_the_numbers_it_returns(capsys):
    rows = {name: {"seconds": 3.0, "ratio": 1.0, "memory": 2.0} for name in steps.METHODS}
    found = steps.estimate(steps.shape_of(steps.MODEL), rows)
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("LLaMA")}
    assert lines["LLaMA-7B"][1] == "13" and lines["LLaMA-7B"][5] == "26" and lines["LLaMA-7B"][7] == "52"
    assert lines.keys() == found.keys()
    for name, line in lines.items():
        assert float(line[9]) == pytest.approx(found[name]["minutes"], abs=0.05)
    times = [found[name]["minutes"] for name in ("LLaMA-7B", "LLaMA-2-70B")]
    assert times[1] / times[0] == pytest.approx(68.977 / 6.738)


@pytest.mark.parametrize("method", recovery.METHODS)
def test_recovery_is_measured_in_tokens_of_examples_per_second(monkeypatch, method):
    monkeypatch.setattr(recovery, "time", SimpleNamespace(perf_counter=iter([10.0, 12.0]).__next__))
    tokenizer, model = byte_tokenizer(), tiny_model()
    encoded = examples.encode(tokenizer, ROWS, 1024)
    found = recovery.tokens_per_second(method, model, tokenizer, encoded)
    assert found == sum(len(ids) for ids, _ in encoded) / 2
    trained = [value for name, value in model.named_parameters() if "lora_B" in name]
    assert len(trained) == 2 * 7 and all(value.any() for value in trained)  # they are zero before training


def test_recoverys_table_has_the_medians_of_rounds(capsys):
    rates = {"Trainer, padded": [100.0, 200.0, 300.0], "mpstudy, packed": [150.0, 600.0, 330.0]}
    found = recovery.table(rates)
    assert found["mpstudy, packed"] == {"tokens_per_second": 330.0, "ratio": 1.5}  # of 1.5, 3 and 1.1
    assert found["Trainer, padded"] == {"tokens_per_second": 200.0, "ratio": 1.0}
    assert capsys.readouterr().out.splitlines()[-1].split() == ["mpstudy,", "packed", "330", "1.50"]


def test_recoverys_estimate_prints_the_numbers_it_returns(capsys):
    found = recovery.estimate()
    line = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("LLaMA-7B"))
    row = found["LLaMA-7B"]
    numbers = [row["weights_gb"], row["lora_gb"], *row["per_card_gb"].values()]
    assert [float(text) for text in line[1:]] == [round(n, 1 if n == row["lora_gb"] else 0) for n in numbers]
    assert list(found) == list(estimates.LARGE)


def test_unstructured_methods_stand_beside_each_other(monkeypatch, capsys):
    monkeypatch.setattr(sparse, "SIZE", 24)
    monkeypatch.setattr(sparse, "TOKENS", 100)
    rows = sparse.linear()
    lines = [line.rsplit(maxsplit=4) for line in capsys.readouterr().out.splitlines()[3:]]
    assert {line[0] for line in lines} == {*METHODS, "wanda + admm", "wanda + exact"} - {"masked"}
    factorisations = {line[0]: int(line[3]) for line in lines}
    assert factorisations == {name: row["factorisations"] for name, row in rows.items()}
    expected = {"magnitude": 0, "wanda": 0, "sparsegpt": 2, "admm": 1, "admm-gradual": 1, "wanda + admm": 1}
    by_row = {"wanda + exact": 24, "joint-removal": 25}  # exact least squares: one a row
    assert factorisations == expected | by_row
    errors = {line[0]: float(line[4]) for line in lines}
    assert errors["wanda + exact"] <= errors["wanda + admm"] < errors["wanda"]


def test_whole_layers_take_their_gram_matrices_and_the_method(monkeypatch, capsys):
    monkeypatch.setattr(sparse, "MODEL", SMALL)
    monkeypatch.setattr(sparse, "linear", dict)
    monkeypatch.setattr(sparse, "TEXTS", [(2, 16)])
    rows = sparse.main()["layers"]["2 x 16"]
    lines = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()[3:]]
    assert [line[0] for line in lines] == list(rows) == [sparse.GRAMS, *(name for name in METHODS if name != "masked")]
    assert rows["wanda"]["ratio"] == 1.0 and all(row["seconds"] > 0 for row in rows.values())


def test_the_numbers_are_written_beside_the_machine(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(__main__, "PARTS", {"steps": lambda: {"ratio": 1.5}, "sparse": lambda: {"error": 0.25}})
    __main__.main(["--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.pop("machine")["cores"] >= 1
    assert found == {"steps": {"ratio": 1.5}, "sparse": {"error": 0.25}}
    __main__.main([])
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
