"""``prune --repair``: the checkpoint, its facts, what is printed, and mistakes in one line."""

import numpy as np
import pytest
import torch
from helpers.tiny import byte_tokenizer, tiny_folder, tiny_model, tokens

import mpstudy
from mpstudy import __main__
from mpstudy.inputs import corpora, models
from mpstudy.repair import REPAIRS, repair
from mpstudy.structure import checkpoint, surgery
from mpstudy.structure.plan import Plan

TEXTS = [f"On day {day} the people said that {day} times {day} is {day * day}." for day in range(40)]
PRUNE = "prune ./model --scores taylor.safetensors --ratio 0.5 --out repaired "
CALIBRATION = "--calibration wiki --samples 5 --length 16 --sample-seed 3"
METHODS = [name for name, record in REPAIRS.items() if record.function]


@pytest.fixture
def home(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "model", num_hidden_layers=4)
    np.save(tmp_path / "batch.npy", tokens(3, 16).numpy())
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.setattr(corpora, "load_texts", lambda name, local=None: corpora._corpus(name, "text") and TEXTS)
    monkeypatch.chdir(tmp_path)
    assert run("score ./model --pruner taylor --tokens batch.npy --layers 1-2 --out taylor.safetensors") == 0
    return tmp_path


def run(command: str) -> int:
    return __main__.main(command.split())


def meta(folder="repaired"):
    return checkpoint.read_facts(folder)["meta"]


@pytest.mark.parametrize("method", METHODS)
def test_the_checkpoint_is_what_the_library_repairs(home, capsys, method):
    strength = REPAIRS[method].strength
    assert run(f"{PRUNE} --repair {method} {CALIBRATION}") == 0
    size = {"samples": 5, "length": 16, "seed": 3, "bos": False}
    assert meta()["repair"] == {"method": method, "lambda": strength, "corpus": "wiki"} | size
    expected, plan = tiny_model(num_hidden_layers=4), Plan.from_json(meta()["plan"])
    batch = corpora.calibration_batch(byte_tokenizer(), "wiki", samples=5, length=16, seed=3)
    rows = repair(expected, plan, [batch], method=method)
    found = mpstudy.load_pruned("repaired").state_dict()
    assert found.keys() == expected.state_dict().keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.state_dict().items())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("model.layers.")]
    assert [line.rpartition(" left for ")[2] for line in lines[:-1]] == ["3", "2", "1"] and "left" not in lines[-1]
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(f"{row['linear']}: error {row['before']:.4f} before, {row['after']:.4f} after, ")


def test_own_tokens_and_strength(home):
    assert run(f"{PRUNE} --repair admm --strength 0.25 --tokens batch.npy") == 0
    facts = {"method": "admm", "lambda": 0.25, "tokens": "batch.npy", "samples": 3, "length": 16}
    assert meta()["repair"] == facts


def test_half_precision_weights_that_stay_keep_their_bits(home):
    models.in_dtype(tiny_model(num_hidden_layers=4), "bfloat16").save_pretrained("half")
    byte_tokenizer().save_pretrained("half")
    prune = PRUNE.replace("./model", "./half")
    assert run(f"{prune} --repair least-squares {CALIBRATION}") == 0
    assert run(prune.replace("repaired", "plain")) == 0
    plain, found = (mpstudy.load_pruned(name).state_dict() for name in ("plain", "repaired"))
    changed = {name for name, value in plain.items() if not torch.equal(value, found[name])}
    outputs = ("self_attn.o_proj", "mlp.down_proj")
    assert changed == {f"model.layers.{layer}.{name}.weight" for layer in (1, 2) for name in outputs}
    assert {value.dtype for value in found.values()} == {torch.bfloat16}


def test_without_a_repair_nothing_is_fitted(home):
    assert run(PRUNE) == 0
    assert "repair" not in meta()
    expected = surgery.remove_units(tiny_model(num_hidden_layers=4), Plan.from_json(meta()["plan"])).state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in mpstudy.load_pruned("repaired").state_dict().items()
    )


def test_a_bias_is_exported(home):
    assert run("score ./model --pruner taylor --tokens batch.npy --layers 0-3 --out taylor.safetensors") == 0
    assert run(f"{PRUNE} --repair bias {CALIBRATION}") == 0
    assert run("export repaired --out standard") == 0
    standard = models.load_model("standard")
    assert standard.config.attention_bias and standard.model.layers[3].mlp.down_proj.bias.any()
    with torch.no_grad():
        expected = mpstudy.load_pruned("repaired")(tokens()).logits
        assert torch.equal(standard(tokens()).logits, expected)


def test_numbers_that_are_not_finite_save_nothing(home, capsys):
    model = tiny_model(num_hidden_layers=4)
    model.model.layers[2].mlp.up_proj.weight.data[5, 0] = float("inf")
    model.save_pretrained("bad")
    byte_tokenizer().save_pretrained("bad")
    assert run(f"{PRUNE.replace('./model', './bad')} --repair least-squares {CALIBRATION}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not finite in model.layers.2.mlp.down_proj (repair least-squares)" in error
    assert not (home / "repaired").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--repair obs", "unknown repair 'obs'; known: admm, bias, least-squares, none"),
        ("--repair bias --strength 0.1", "repair 'bias' has no strength; these have one: least-squares, admm"),
        ("--repair bias --calibration brown", "unknown text corpus 'brown'; known: "),
    ],
)
def test_mistakes_are_one_line_before_the_model_is_loaded(home, capsys, monkeypatch, options, message):
    monkeypatch.setattr(models, "load_model", None)
    capsys.readouterr()
    assert run(f"{PRUNE} {options}") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (home / "repaired").exists()


def test_hidden_dimensions_are_not_repaired(home, capsys):
    assert run("score ./model --pruner l2 --tokens batch.npy --layers hidden --out taylor.safetensors") == 0
    assert run(f"{PRUNE} --repair least-squares {CALIBRATION}") == 2
    assert "hidden dimensions are inputs of every layer: repair 'least-squares' is of" in capsys.readouterr().err
