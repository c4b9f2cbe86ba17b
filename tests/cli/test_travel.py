"""What goes into a command comes out of it: the dtype, the settings of generation, the chat template, the zeros."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny import byte_tokenizer, cast, tiny_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mpstudy import __main__
from mpstudy.inputs import models
from mpstudy.inputs.folders import PRUNED
from mpstudy.structure import checkpoint
from mpstudy.structure.scores import Scores

SCORE = "score ./model --pruner l1 --layers 0-1 --out scores"
PRUNE = "prune ./model --scores scores --ratio 0.5 --out pruned"
SPARSIFY = "sparsify ./model --method wanda --sparsity 0.5 --layers 0-1 --samples 2 --length 16 --out sparse"
RECOVER = (
    "recover ./pruned --rows 8 --validation 4 --epochs 1 --batch-size 4 --warmup-steps 0 --cutoff 400 --out recovered"
)
EXPORT = "export ./pruned --out standard"
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A bfloat16 model with settings of generation of its own and a chat template."""
    model, tokenizer = cast(tiny_model(tie_word_embeddings=False), torch.bfloat16), byte_tokenizer()
    model.generation_config = GenerationConfig(eos_token_id=[0, 5], do_sample=True, temperature=0.3)
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*commands: str) -> None:
    for command in commands:
        assert __main__.main(command.split()) == 0, command


def elsewhere(command: str) -> str:
    return command.replace("--out pruned", "--out again")


def dtypes(folder: str) -> set[torch.dtype]:
    return {value.dtype for value in load_file(Path(folder) / "model.safetensors").values()}


def zeros(folder: str) -> dict[str, float]:
    state = load_file(Path(folder) / "model.safetensors")
    return {name: float((value == 0).float().mean()) for name, value in state.items() if "proj.weight" in name}


def test_every_command_keeps_what_the_model_brought(home):
    run(SCORE, PRUNE, SPARSIFY, RECOVER, EXPORT)
    for folder in ("pruned", "sparse", "recovered", "standard"):
        assert dtypes(folder) == {torch.bfloat16}, folder
        settings = json.loads((home / folder / "generation_config.json").read_text())
        assert settings["eos_token_id"] == [0, 5] and settings["temperature"] == 0.3, folder
        assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE, folder
        assert {parameter.dtype for parameter in models.load_model(folder).parameters()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained("standard").dtype == torch.bfloat16


@pytest.mark.parametrize("command", [PRUNE, SPARSIFY, RECOVER, EXPORT])
def test_another_dtype_can_be_asked_for(home, command):
    run(SCORE, PRUNE, elsewhere(command) + " --dtype float16")
    assert dtypes(elsewhere(command).split()[-1]) == {torch.float16}


def test_what_was_removed_of_each_kind_is_said(home, capsys):
    run(SCORE, PRUNE.replace("0.5", "0.2"))
    said = capsys.readouterr().out
    assert "0 of 4 head groups removed: the ratio is less than one of the 2 of a layer" in said
    assert "10 of 48 MLP channels removed" in said


def test_a_pruned_folder_is_made_sparse_and_stays_one_of_this_package(home):
    run(SCORE, PRUNE, SPARSIFY.replace("./model", "./pruned"))
    assert checkpoint.read_facts("sparse")["meta"]["sparse"]["method"] == "wanda"
    assert set(zeros("sparse").values()) == {0.5}
    assert models.load_model("sparse").config.num_hidden_layers == 2
    assert checkpoint.MARK == PRUNED


@pytest.mark.parametrize("target", ["0.5", "2:4"])
def test_recovery_keeps_the_zeros_of_a_sparse_model(home, capsys, target):
    run(SPARSIFY.replace("0.5", target), RECOVER.replace("./pruned", "./sparse"))
    assert set(zeros("sparse").values()) == {0.5} and zeros("recovered") == zeros("sparse")
    old, new = (load_file(Path(folder) / "model.safetensors") for folder in ("sparse", "recovered"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(old[name] == 0, new[name] == 0) and not torch.equal(old[name], new[name])
    assert "50.0% of its sparse matrices was zero before, 50.0% is now" in capsys.readouterr().out


@pytest.mark.parametrize(("target", "warned"), [("0.05", True), ("0.5", False)])
def test_zeros_that_will_go_are_told(home, capsys, target, warned):
    run(SPARSIFY.replace("0.5", target), RECOVER.replace("./pruned", "./sparse"))
    assert ("is zero are not sparse and lose their zeros" in capsys.readouterr().err) == warned


@pytest.mark.parametrize("bos", ["yes", "no"])
def test_bos_is_recorded_with_scores_and_recovery(home, bos):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "a"})  # one that it knows, and by itself puts nowhere
    tokenizer.save_pretrained("model")
    score = SCORE.replace("l1", "taylor") + f" --samples 2 --length 16 --bos {bos}"
    run(score, PRUNE, RECOVER + f" --bos {bos}")
    assert Scores.load("scores").meta["bos"] == (bos == "yes")
    assert checkpoint.read_facts("recovered")["meta"]["recovery"]["bos"] == (bos == "yes")


KILLED = """
import os, sys, transformers
from mpstudy import __main__

def half(self, folder, **more):
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, "config.json"), "w").write("{}")
    os.kill(os.getpid(), 9)

transformers.PreTrainedConfig.save_pretrained = transformers.PreTrainedModel.save_pretrained = half
__main__.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [PRUNE, SPARSIFY, RECOVER, EXPORT])
def test_a_command_that_was_killed_while_it_wrote_goes_on(home, command):
    run(SCORE, PRUNE)
    command = elsewhere(command)
    out = Path(command.split()[-1])
    killed = subprocess.run([sys.executable, "-c", KILLED, *command.split()], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    assert list(home.glob(".*writing*"))
    run(command)
    models.load_model(str(out))
    assert not list(home.glob(".*writing*")) and not list(home.glob("*.state"))
