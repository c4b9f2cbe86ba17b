"""The command ``slice``, and others on the model that it writes."""

import numpy as np
import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import tiny_folder, tokens
from transformers import AutoModelForCausalLM

import mpstudy
from mpstudy import __main__
from mpstudy.evaluation import cost
from mpstudy.inputs import models

SLICE = "slice ./model --cut 0.25 --tokens batch.npy --out sliced"


@pytest.fixture
def home(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "model", num_hidden_layers=3, tie_word_embeddings=True)
    tiny_family("opt").save_pretrained(tmp_path / "opt")
    np.save(tmp_path / "batch.npy", tokens(12, 16).numpy())
    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times. " * 8)
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    return __main__.main(command.split())


def test_a_sliced_model_is_written_and_used(home, capsys):
    assert run(SLICE + " --dtype bfloat16") == 0
    written = capsys.readouterr()
    sliced, dense = mpstudy.load_pruned("sliced"), AutoModelForCausalLM.from_pretrained("model")
    assert sliced.config.hidden_size == 24 and sliced.dtype == torch.bfloat16
    lines = written.out.splitlines()
    assert lines[0] == "sliced: 24 of 32 hidden dimensions kept"
    for line, unit, count in zip(lines[1:], ("parameters", "MACs at 128 tokens"), (cost.parameter_count, cost.macs)):
        before, after = count(dense), count(sliced)
        assert line == f"  {unit}: {after:,} of {before:,} ({after / before - 1:+.1%})"
    progress = [line for line in written.err.splitlines() if line.startswith("layer ")]
    assert len(progress) == 3 and "% of the signal kept, " in progress[0] and progress[1].endswith(" left for 1")
    assert run("evaluate ./sliced --text book.txt --window 16") == 0
    assert f"{cost.parameter_count(sliced):,} parameters" in capsys.readouterr().out
    assert run("score ./sliced --pruner taylor --tokens batch.npy --layers 1-2 --out t.safetensors") == 0
    assert run("prune ./sliced --scores t.safetensors --ratio 0.5 --out both") == 0
    assert mpstudy.load_pruned("both").config.sliced_from == 32


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SLICE.replace("./model", "./opt"), "models of opt cannot be sliced: its norms subtract the mean; those of llama"),
        (SLICE.replace("0.25", "1"), "--cut must be a number in [0, 1), not 1.0"),
        (SLICE.replace("./model", "./sliced").replace("out sliced", "out more"), "the model is sliced already"),
        (SLICE.replace("out sliced", "out model"), "model exists and is not a pruned checkpoint"),
        ("export ./sliced --out more", "./sliced is sliced: no config of transformers names the matrices in its"),
        ("score ./sliced --pruner l2 --layers hidden --out t", "hidden dimensions of ./sliced cannot be scored: it is"),
        ("score ./sliced --pruner block-ppl --tokens batch.npy --layers blocks --out t", "blocks of a sliced model"),
    ],
)
def test_bad_input_is_one_line(home, capsys, command, message):
    assert run(SLICE) == 0
    capsys.readouterr()
    assert run(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (home / "more").exists() and not (home / "t").exists()
