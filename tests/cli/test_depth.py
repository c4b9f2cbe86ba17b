"""``score --layers blocks`` and ``prune`` of what it wrote."""

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_folder, tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

import mpstudy
from mpstudy import __main__
from mpstudy.inputs import models
from mpstudy.structure.scores import Scores

SCORE = "score ./model --pruner block-ppl --tokens batch.npy --layers blocks --out b.safetensors"
PRUNE = "prune ./model --scores b.safetensors --ratio 0.25 --out out"


@pytest.fixture
def home(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "model", num_hidden_layers=8)
    np.save(tmp_path / "batch.npy", tokens(3, 16).numpy())
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    return __main__.main(command.split())


def logits(model):
    with torch.no_grad():
        return model(tokens()).logits


@pytest.mark.parametrize("pruner", ["block-taylor", "block-ppl", "block-influence"])
def test_blocks_are_scored_and_removed(home, capsys, pruner):
    assert run(SCORE.replace("block-ppl", pruner)) == 0
    assert f"1 unit sets, scored by {pruner}" in capsys.readouterr().out
    assert Scores.load("b.safetensors").values["blocks"].shape == (8,)
    assert run(PRUNE + " --dtype bfloat16") == 0
    dense = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained("model").parameters())
    shallow = AutoModelForCausalLM.from_pretrained("out")
    left = sum(p.numel() for p in shallow.parameters())
    assert len(shallow.model.layers) == 6 and shallow.dtype == torch.bfloat16
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"out: {left:,} of {dense:,} parameters kept ({1 - left / dense:.1%} removed)",
        "  2 of 8 blocks removed: 4, 5",
    ]
    assert AutoTokenizer.from_pretrained("out")("a")["input_ids"]


def test_other_blocks_may_stay(home, capsys):
    run(SCORE)
    values = Scores.load("b.safetensors").values["blocks"]
    assert run(PRUNE + " --keep-first 0 --keep-last 6") == 0
    assert "2 of 8 blocks removed: 0, 1" in capsys.readouterr().out
    assert run(PRUNE.replace("--out out", "--out free") + " --keep-first 0 --keep-last 0") == 0
    lowest = ", ".join(str(number) for number in sorted(values.argsort()[:2].tolist()))
    assert f"2 of 8 blocks removed: {lowest}" in capsys.readouterr().out


def test_a_pruned_model_stays_a_pruned_one(home, capsys):
    run("score ./model --pruner l2 --layers 1-6 --out units.safetensors")
    run("prune ./model --scores units.safetensors --ratio 0.5 --out pruned")
    assert run(SCORE.replace("./model", "./pruned")) == 0
    assert run(PRUNE.replace("./model", "./pruned")) == 0
    shallow, before = mpstudy.load_pruned("out"), mpstudy.load_pruned("pruned")
    assert len(shallow.model.layers) == 6
    del before.model.layers[4:6]
    assert torch.equal(logits(shallow), logits(before.eval()))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SCORE.replace("block-ppl", "taylor"), "unknown pruner of blocks 'taylor'; known: block-"),
        (SCORE.replace("--layers blocks", "--layers 1-2"), "'block-ppl' scores whole blocks: give --layers blocks"),
        (SCORE + " --set window=3", "pruner 'block-ppl' has no settings, not window"),
        (PRUNE.replace("0.25", "0.5"), "a ratio of 0.5 is 4 of 8 blocks, and 2 may go"),
        (PRUNE + " --scope global", "--scope and --multiple are about units in layers"),
        (PRUNE + " --multiple 8", "--scope and --multiple are about units in layers"),
        (PRUNE + " --keep-last -1", "--keep-last must be a whole number of at least 0, not -1"),
        (
            PRUNE.replace("b.saf", "units.saf") + " --keep-first 1",
            "--keep-first and --keep-last are about whole blocks",
        ),
        (PRUNE.replace("./model", "./other"), "the plan does not fit this model: it is of {'blocks': 8}, here are 2"),
    ],
)
def test_bad_input_is_one_line(home, capsys, command, message):
    tiny_folder(home / "other")
    run(SCORE)
    run("score ./model --pruner l2 --layers 1-6 --out units.safetensors")
    capsys.readouterr()
    assert run(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (home / "out").exists()
