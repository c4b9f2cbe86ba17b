"""The commands score, prune, evaluate and recover work end to end, and each bad input is one line and status 2."""

import codecs
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.tiny import BYTES, ROWS, bos_tokenizer, byte_tokenizer, pruned_model, tiny_folder, tiny_model, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaConfig

from mpstudy import __main__, pruners
from mpstudy.cli import inputs, model, prune, recover
from mpstudy.errors import StudyError
from mpstudy.evaluation import cost, perplexity, zeroshot
from mpstudy.inputs import corpora, hub, models
from mpstudy.recovery import lora
from mpstudy.recovery.recipe import Recipe
from mpstudy.store.paths import ROOT
from mpstudy.structure import checkpoint, surgery, units
from mpstudy.structure.scores import Scores

COMMANDS = ("score", "prune", "sparsify", "export", "evaluate", "recover")
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 6


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """``mute`` is a model without tokenizer, ``model`` the same with one; their scores, tokens and a text."""
    home = tmp_path_factory.mktemp("home")
    tiny_folder(home / "mute", tokenizer=False, num_hidden_layers=6)
    tiny_folder(home / "model", num_hidden_layers=6)
    np.save(home / "batch.npy", tokens(3, 16).numpy())
    (home / "book.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "default_device", lambda: "cpu")
        command = f"score mute --pruner taylor --tokens batch.npy --layers 1-4 --out {home}/taylor.safetensors"
        assert run(command, home) == 0
    return home


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    """A short text and twelve instructions in place of the bundled ones; the CPU, for bits that can be compared."""
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    load = corpora.load_texts

    def load_texts(name, local=None):
        corpora._corpus(name, "text")
        return load(name, local) if local else [TEXT, TEXT[5:]]

    monkeypatch.setattr(corpora, "load_texts", load_texts)
    monkeypatch.setattr(corpora, "load_instructions", lambda name: ROWS)


def run(command: str, home: Path) -> int:
    """The exit status of a command line in which names of ``home`` stand without their folder."""
    words = [str(home / word) if (home / word).exists() else word for word in shlex.split(command)]
    return __main__.main(words)


def metadata(path: Path) -> dict:
    with safe_open(str(path), framework="pt") as handle:
        return json.loads(handle.metadata()["mpstudy_scores"])


# --- score -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_library(home):
    model = tiny_model(num_hidden_layers=6)
    found = units.prunable_units(model, "1-4")
    expected = pruners.score("taylor", model, [tokens(3, 16)], found)
    scores = Scores.load(home / "taylor.safetensors")
    assert scores.values.keys() == {f"layers.{i}.{kind}" for i in range(1, 5) for kind in ("attention", "mlp")}
    assert all(torch.equal(value, scores.values[key]) for key, value in expected.values.items())
    assert {key: len(value) for key, value in scores.values.items()} == found.counts
    assert metadata(home / "taylor.safetensors") == expected.meta
    assert expected.meta["pruner"] == "taylor"


@pytest.mark.parametrize(
    ("pruner", "settings", "expected"),
    [
        ("moreau-release", "steps=3", {"steps": 3}),
        ("moreau-release", "steps=1 proximal=true", {"steps": 1, "proximal": True}),
        ("moreau-release", "steps=1 lr=1e-4 std=0", {"lr": 1e-4, "std": 0}),
        ("smoothgrad", "noise=isotropic sigma=1e-3 steps=2", {"noise": "isotropic", "sigma": 1e-3, "steps": 2}),
    ],
)
def test_settings_reach_the_pruner_and_the_file(home, tmp_path, pruner, settings, expected):
    options = " ".join(f"--set {setting}" for setting in settings.split())
    out = tmp_path / "new" / "scores.safetensors"
    assert run(f"score mute --pruner {pruner} {options} --tokens batch.npy --layers 2 --seed 7 --out {out}", home) == 0
    meta = metadata(out)
    assert meta.items() >= (expected | {"pruner": pruner, "seed": 7}).items()
    assert [type(meta[name]) for name in expected] == [type(value) for value in expected.values()]


def test_a_corpus_is_sampled_by_its_seed(home, tmp_path, capsys):
    command = "score model --pruner taylor --corpus wiki --samples 2 --length 20 --sample-seed 5 --layers 0-1 --out "
    assert run(command + str(tmp_path / "scores"), home) == 0
    model, tokenizer = tiny_model(num_hidden_layers=6), byte_tokenizer()
    batch = corpora.calibration_batch(tokenizer, "wiki", samples=2, length=20, seed=5)
    expected = pruners.score("taylor", model, [batch], units.prunable_units(model, "0-1"))
    scores = Scores.load(tmp_path / "scores")
    assert all(torch.equal(value, scores.values[key]) for key, value in expected.values.items())
    out, err = capsys.readouterr()
    assert "4 unit sets, scored by taylor in" in out and "pruner: taylor" in out and err == ""


def test_a_pruned_model_can_be_scored_and_pruned_again(home, tmp_path):
    for folder, step in (("model", "once"), (str(tmp_path / "once"), "twice")):
        scores, out = tmp_path / f"{step}.safetensors", tmp_path / step
        assert run(f"score {folder} --pruner l1 --tokens batch.npy --layers 0-5 --out {scores}", home) == 0
        assert run(f"prune {folder} --scores {scores} --ratio 0.25 --out {out}", home) == 0
    assert surgery.unit_counts(checkpoint.load_pruned(tmp_path / "once"))["layers.3.mlp"] == 18
    assert surgery.unit_counts(checkpoint.load_pruned(tmp_path / "twice"))["layers.3.mlp"] == 13


# --- prune -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["local", "global"])
def test_pruning_removes_the_planned_share(home, tmp_path, scope, capsys):
    options = f"--scores taylor.safetensors --ratio 0.125 --scope {scope} --out {tmp_path / 'pruned'}"
    assert run(f"prune mute {options}", home) == 0
    model = models.load_model(str(tmp_path / "pruned"), device="cpu")
    counts = surgery.unit_counts(model)
    removed = 24 - np.array([counts[f"layers.{i}.mlp"] for i in range(6)])
    assert removed[[0, 5]].tolist() == [0, 0] and removed.sum() == 4 * 3
    assert set(removed[1:5]) == {3} or scope == "global"
    meta = checkpoint.read_facts(tmp_path / "pruned")["meta"]
    assert meta["plan"]["meta"] == {"ratio": 0.125, "scope": scope, "pruner": "taylor"}
    assert meta["scores"] == metadata(home / "taylor.safetensors")
    assert f"{cost.parameter_count(model):,} of {meta['parameters_before']:,} parameters kept" in capsys.readouterr()[0]


def test_the_tokenizer_goes_along_if_there_is_one(home, tmp_path):
    for name in ("mute", "model"):
        assert run(f"prune {name} --scores taylor.safetensors --ratio 0.5 --out {tmp_path / name}", home) == 0
    assert models.load_tokenizer(str(tmp_path / "model"))("a").input_ids == byte_tokenizer()("a").input_ids
    with pytest.raises(StudyError, match="cannot load the Tokenizer"):
        models.load_tokenizer(str(tmp_path / "mute"))


# --- evaluate ----------------------------------------------------------------------------------------------------


def evaluated(command: str, home: Path, capfd) -> dict:
    """The one JSON object that a command prints."""
    capfd.readouterr()
    assert run(f"evaluate {command} --json", home) == 0
    out, err = capfd.readouterr()
    assert "error" not in err and out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_byte_order_mark_is_no_part_of_a_text(home, tmp_path, capfd):
    (tmp_path / "marked.txt").write_bytes(codecs.BOM_UTF8 + TEXT.encode())
    marked = evaluated(f"model --text {tmp_path / 'marked.txt'} --window 32", home, capfd)
    assert marked == evaluated("model --text book.txt --window 32", home, capfd)


def test_evaluation_is_that_of_the_library(home, capfd):
    result = evaluated("model --text book.txt --window 32", home, capfd)
    windows = corpora.text_windows(byte_tokenizer(), TEXT, window=32)
    model = tiny_model(num_hidden_layers=6)
    expected = perplexity.perplexity(model, windows) | {"parameters": cost.parameter_count(model), "bos": False}
    assert result.pop("losses") == pytest.approx(expected.pop("losses"), rel=1e-6)  # of each window
    assert result == pytest.approx(expected, rel=1e-6)
    assert result.keys() >= {"perplexity", "tokens", "window", "stderr"}
    assert (result["window"], result["tokens"]) == (32, len(TEXT) // 32 * 31)


@pytest.fixture
def bos_home(tmp_path):
    """A model whose tokenizer puts BOS before a text, with 32 positions."""
    tiny_model(vocab_size=BYTES + 1, max_position_embeddings=32).save_pretrained(tmp_path / "model")
    bos_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize(
    ("option", "bos"), [("", True), ("--bos default", True), ("--bos yes", True), ("--bos no", False)]
)
def test_windows_begin_with_bos_where_the_tokenizer_puts_one(bos_home, capfd, option, bos):
    found = evaluated(f"model --text book.txt --window 16 {option}", bos_home, capfd)
    windows = corpora.text_windows(bos_tokenizer(), TEXT, window=16, bos=bos)
    assert windows.shape[1] == 16 + bos
    model = models.load_model(str(bos_home / "model"))
    assert found["losses"] == pytest.approx(perplexity.perplexity(model, windows)["losses"], rel=1e-6)
    assert (found["window"], found["bos"], found["tokens"]) == (16, bos, len(TEXT) // 16 * (15 + bos))


def test_bos_takes_a_position_and_must_exist(bos_home, home, capfd):
    assert evaluated("model --text book.txt --window 32 --bos no", bos_home, capfd)["tokens"] > 0
    for command, folder, message in (
        ("evaluate model --text book.txt --window 32", bos_home, "in the 32 positions of the model: at most 31"),
        ("score model --pruner taylor --layers 0-1 --length 32 --out x", bos_home, "in the 32 positions of the model"),
        ("evaluate model --text book.txt --window 16 --bos yes", home, "the tokenizer has no such token"),
    ):
        assert run(command, folder) == 2
        assert message in capfd.readouterr().err


def test_lengths_have_room_in_the_model(home, monkeypatch):
    """Before anything is imported by the file of its config, and once more by all that transformers knows of it."""
    asked = []
    for module in (inputs, model):
        monkeypatch.setattr(module, "check_room", lambda config, length, first: asked.append((type(config), length)))
    plain, known = SimpleNamespace, LlamaConfig
    for command, length in (("--length 24", 24), ("--tokens batch.npy", 16)):
        asked.clear()
        assert run(f"score model --pruner l1 --layers 1 {command} --out {home / 'room'}", home) == 0
        assert set(asked) == {(plain, length), (known, length)}
    asked.clear()
    assert run("evaluate model --text book.txt --window 24", home) == 0
    assert set(asked) == {(plain, 24), (known, 24)}


def test_the_first_windows_are_taken(home, capfd):
    result = evaluated("model --text book.txt --window 16 --max-windows 3", home, capfd)
    (home / "start.txt").write_text(TEXT[: 3 * 16])
    assert result == evaluated("model --text start.txt --window 16", home, capfd)
    assert result["tokens"] == 3 * 15


def test_bos_is_about_a_text(home, capfd):
    assert run("evaluate model --tasks facts --bos yes", home) == 2
    assert "--bos is about windows of a text" in capfd.readouterr().err


def test_one_window_has_no_standard_error(home, capfd):
    assert evaluated("model --text book.txt --window 16 --max-windows 1", home, capfd)["stderr"] is None


def test_a_corpus_is_evaluated_whole(home, capfd):
    result = evaluated("model --corpus wiki --window 32", home, capfd)
    assert result["tokens"] == (2 * len(TEXT) - 5 + len(corpora.JOINT)) // 32 * 31


def test_a_copy_of_a_hub_corpus_is_joined_as_the_reference_joins_it(home, tmp_path, capfd, monkeypatch):
    """LLM-Pruner joins the rows of WikiText-2, line ends kept, and of Penn Treebank by two line ends."""
    monkeypatch.setattr(hub, "cache_dir", lambda: tmp_path / "cache")
    (tmp_path / "wiki.test.raw").write_text(" \n = A title = \n \n Some words . \n")
    (tmp_path / "ptb.valid.txt").write_text(" one two \n three four \n")
    joined = {"wikitext2": "\n\n = A title = \n\n\n\n\n Some words . \n", "ptb": "one two\n\nthree four"}
    for (corpus, text), file in zip(joined.items(), ("wiki.test.raw", "ptb.valid.txt")):
        (tmp_path / "joined.txt").write_text(text)
        found = evaluated(f"model --corpus {corpus} --text {tmp_path / file} --window 4", home, capfd)
        assert found == evaluated(f"model --text {tmp_path / 'joined.txt'} --window 4", home, capfd)


def test_tasks_are_added(home, capfd):
    result = evaluated("model --text book.txt --window 16 --tasks agreement --limit 6", home, capfd)
    (row,) = result["zero_shot"]
    assert (row["task"], row["n_items"], row["chance"]) == ("agreement", 6, 0.5)
    assert run("evaluate model --text book.txt --window 16 --tasks agreement --limit 6", home) == 0
    out = capfd.readouterr()[0]
    assert f"perplexity {result['perplexity']:.3f} ± {result['stderr']:.3f}" in out
    assert re.search(r"agreement: acc \d\.\d{3} ± \d\.\d{3} \(chance 0.50, n = 6\)", out)


def test_tasks_need_no_text(home, capfd):
    result = evaluated("model --tasks agreement --limit 6", home, capfd)
    assert result.keys() == {"parameters", "zero_shot"}
    assert result["zero_shot"] == zeroshot.evaluate_tasks(
        tiny_model(num_hidden_layers=6), byte_tokenizer(), ["agreement"], limit=6
    )
    assert run("evaluate model --tasks agreement --limit 6", home) == 0
    out = capfd.readouterr()[0]
    assert f"{result['parameters']:,} parameters" in out and "agreement: acc" in out and "perplexity" not in out


# --- recover -----------------------------------------------------------------------------------------------------


def test_a_pruned_model_is_recovered(home, tmp_path, capfd):
    assert run(f"prune model --scores taylor.safetensors --ratio 0.5 --out {tmp_path / 'pruned'}", home) == 0
    options = "--rows 8 --validation 2 --epochs 2 --batch-size 4 --lr 1e-2 --warmup-steps 1 --cutoff 260 --r 2"
    capfd.readouterr()
    assert run(f"recover {tmp_path / 'pruned'} {options} --out {tmp_path / 'recovered'}", home) == 0
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == [f"step {step}/4" for step in range(5)]
    assert all("validation_loss" in line for line in lines)
    history = checkpoint.read_facts(tmp_path / "recovered")["meta"]["recovery"]["history"]
    assert f"validation loss {history[-1]['validation_loss']:.4f} nats" in out
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]
    before, after = (models.load_model(str(tmp_path / name), device="cpu") for name in ("pruned", "recovered"))
    assert surgery.unit_counts(before) == surgery.unit_counts(after)
    assert not torch.equal(before.model.layers[2].mlp.up_proj.weight, after.model.layers[2].mlp.up_proj.weight)
    assert models.load_tokenizer(str(tmp_path / "recovered")).eos_token == "<eos>"


def test_a_stopped_recovery_goes_on_and_ends_the_same(home, tmp_path, capfd, monkeypatch):
    options = "recover model --rows 8 --validation 2 --epochs 25 --batch-size 8 --lr 1e-2 --warmup-steps 1 --r 2 --out "
    assert run(options + str(tmp_path / "whole"), home) == 0

    def stop(self, row):
        if row["step"] == 21:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recover._Steps, "__call__", stop)
        assert run(options + str(tmp_path / "resumed"), home) == 130
    assert not (tmp_path / "resumed").exists() and (tmp_path / "resumed.state").is_file()
    capfd.readouterr()
    assert run(options + str(tmp_path / "resumed"), home) == 0
    assert f"goes on from {tmp_path / 'resumed.state'}" in capfd.readouterr().err
    whole, resumed = (models.load_model(str(tmp_path / name)).state_dict() for name in ("whole", "resumed"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not (tmp_path / "resumed.state").exists()


@pytest.mark.parametrize(("precision", "kept"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_the_launchers_precision_is_that_of_the_base(home, tmp_path, monkeypatch, precision, kept):
    seen = []
    train = lora.train_adapter
    monkeypatch.setattr(lora, "train_adapter", lambda model, *a, **k: seen.append(model.dtype) or train(model, *a, **k))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    AcceleratorState._reset_state(True)
    try:
        out = tmp_path / "recovered"
        options = "--rows 8 --validation 2 --epochs 2 --batch-size 4 --warmup-steps 1 --cutoff 260 --r 2"
        assert run(f"recover model {options} --out {out}", home) == 0
    finally:
        AcceleratorState._reset_state(True)
    assert seen == [kept]
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {torch.float32}


# --- Bad input -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bad(home, tmp_path):
    """``home`` with files that cannot be used beside the good ones."""
    for path in home.iterdir():
        (tmp_path / path.name).symlink_to(path)
    np.save(tmp_path / "int32.npy", tokens(3, 16).numpy().astype(np.int32))
    np.save(tmp_path / "flat.npy", tokens(3, 16).numpy().ravel())
    np.save(tmp_path / "empty.npy", np.zeros((0, 16), np.int64))
    np.save(tmp_path / "short.npy", tokens(3, 1).numpy())
    np.save(tmp_path / "large.npy", tokens(3, 16).numpy() + 200)
    np.save(tmp_path / "negative.npy", tokens(3, 16).numpy() - 300)
    np.save(tmp_path / "objects.npy", np.array([[1, None]]), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=tokens(3, 16).numpy())
    (tmp_path / "cut.npy").write_bytes((home / "batch.npy").read_bytes()[:-9])
    (tmp_path / "nothing.npy").touch()
    (tmp_path / "short.txt").write_text("Too short.")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "wide.txt").write_bytes(TEXT.encode("utf-16"))
    (tmp_path / "wider.txt").write_bytes(TEXT.encode("utf-16-le"))
    (tmp_path / "blank.txt").write_bytes(codecs.BOM_UTF8 + b"\n")
    np.save(tmp_path / "floats.npy", tokens(3, 16).numpy().astype(np.float64))
    with (tmp_path / "vast.npy").open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {"descr": "<i8", "fortran_order": False, "shape": (2**40, 64)})
        handle.write(bytes(3 * 16 * 8))
    (tmp_path / "garbled.npy").write_bytes((home / "batch.npy").read_bytes().replace(b"descr", b"d(scr"))
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([[1, 2]]))
    save_file({"layers.1.mlp": torch.ones(24)}, tmp_path / "foreign.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((home / "taylor.safetensors").read_bytes()[:-4])
    Scores({"layers.9.mlp": torch.ones(24)}, {}).save(tmp_path / "deeper.safetensors")
    Scores({"layers.1.mlp": torch.ones(25)}, {}).save(tmp_path / "wider.safetensors")
    Scores({"layers.1.mlp": torch.full((24,), torch.nan)}, {}).save(tmp_path / "nan.safetensors")
    broken = checkpoint.save_pruned(pruned_model(), tmp_path / "broken", tokenizer=byte_tokenizer())
    os.truncate(broken / "model.safetensors", 5000)
    config = {"vocab_size": 64, "n_embd": 8, "n_layer": 6, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    GPT2Config(**config).save_pretrained(tmp_path / "gpt2")
    tiny_folder(tmp_path / "narrow", vocab_size=100)
    bare = byte_tokenizer()
    bare.eos_token = bare.pad_token = None
    tiny_model().save_pretrained(tmp_path / "endless")
    bare.save_pretrained(tmp_path / "endless")
    sick = tiny_model()
    torch.nn.init.constant_(sick.model.norm.weight, torch.nan)
    sick.save_pretrained(tmp_path / "sick")
    byte_tokenizer().save_pretrained(tmp_path / "sick")
    return tmp_path


SCORE = "score mute --pruner taylor --tokens batch.npy --layers 1-4 --out new.safetensors "
MOREAU = SCORE.replace("taylor", "moreau")
PRUNE = "prune mute --scores taylor.safetensors --ratio 0.25 --out new "
EVALUATE = "evaluate model --text book.txt --window 16 "
RECOVER = "recover model --rows 8 --validation 2 --epochs 1 --batch-size 4 --warmup-steps 0 --out new "


@pytest.mark.parametrize(
    ("command", "message"),
    [
        # score
        (SCORE.replace("taylor", "wanda"), "unknown pruner 'wanda'; known: .*l1, l2, moreau"),
        (SCORE.replace("mute", "/no/model"), "no model '/no/model': give a bundled name"),
        (SCORE.replace("mute", "owner/absent"), "model 'owner/absent' is not in the local cache"),
        (SCORE.replace("mute", "gpt2"), "no adapter for model family 'gpt2'; known: gemma"),
        (SCORE.replace("mute", "broken").replace("1-4", "0-1"), "truncated or changed"),
        (SCORE.replace("mute", "sick").replace("1-4", "0-1"), "the loss is nan at "),
        (SCORE.replace("1-4", "4-9"), "layers '4-9' are not inside this model's layers 0-5"),
        (SCORE.replace("1-4", "all"), "layers 'all' are not of the form '4-25' or '7'"),
        (SCORE.replace("new.safetensors", "model"), "is a folder; name a file"),
        (SCORE.replace("new.safetensors", "book.txt/new"), "cannot write to the folder"),
        (SCORE + "--set rho=0.1", "unknown setting of pruner 'taylor' 'rho'"),
        (SCORE + "--set rho", "--set takes KEY=VALUE, not 'rho'"),
        (MOREAU + "--set rho=0", "rho of pruner 'moreau' must be a finite number > 0, not 0"),
        (MOREAU + "--set rho=nan", "rho of pruner 'moreau' must be a finite number > 0, not nan"),
        (MOREAU + "--set rho=big", "rho of pruner 'moreau' must be a finite number > 0, not 'big'"),
        (MOREAU + "--set sigma=-1", "sigma of pruner 'moreau' must be a finite number >= 0, not -1"),
        (MOREAU + "--set step_size=inf", "step_size of pruner 'moreau' must be a finite number > 0, not inf"),
        (MOREAU + "--set noise=loud", "unknown noise of pruner 'moreau' 'loud'; known: isotropic"),
        (
            SCORE.replace("taylor", "moreau-gs") + "--set eta=-0.1",
            "eta of pruner 'moreau-gs' must be a finite number >= 0, not -0.1",
        ),
        (
            SCORE.replace("taylor", "smoothgrad") + "--set steps=1.5",
            "steps of pruner 'smoothgrad' must be a whole number of at least 1, not 1.5",
        ),
        (SCORE.replace("taylor", "moreau-release") + "--set proximal=1", "must be true or false, not 1"),
        *[
            (SCORE.replace("batch.npy", f"{name}"), message)
            for name, message in {
                "int32.npy": r"must hold an int64 array \(samples, length >= 2\), not int32 \(3, 16\)",
                "flat.npy": r"must hold an int64 array .*, not int64 \(48,\)",
                "empty.npy": r"must hold an int64 array .*, not int64 \(0, 16\)",
                "short.npy": r"must hold an int64 array .*, not int64 \(3, 1\)",
                "large.npy": "large.npy holds token ids outside the vocabulary of .*mute, which has 257",
                "negative.npy": "negative.npy holds token ids outside the vocabulary",
                "objects.npy": r"must hold an int64 array .*, not object \(1, 2\)",
                "floats.npy": r"must hold an int64 array .*, not float64 \(3, 16\)",
                "vast.npy": r"vast.npy': an array \(1099511627776, 64\) has \d+ bytes, here are 384",
                "garbled.npy": "cannot read tokens from .*garbled.npy': ",
                "pickle.npy": "cannot read tokens from .*pickle.npy': ",
                "model": "cannot read tokens from .*model': it is no file",
                "many.npz": "cannot read tokens from .*many.npz",
                "cut.npy": "cannot read tokens from .*cut.npy",
                "nothing.npy": "cannot read tokens from .*nothing.npy",
                "absent.npy": "cannot read tokens from .*absent.npy.*No such file",
                "book.txt": "cannot read tokens from .*book.txt",
            }.items()
        ],
        ("score mute --pruner l1 --layers 1 --out new", "cannot load the Tokenizer of "),
        ("score model --pruner l1 --layers 1 --out new --corpus brown", "unknown corpus 'brown'; known: "),
        ("score model --pruner l1 --layers 1 --out new --samples 0", "--samples must be a whole number of .* 1, not 0"),
        ("score model --pruner l1 --layers 1 --out new --length 1", "--length must be a whole number of .* 2, not 1"),
        ("score model --pruner l1 --layers 1 --out new --length 9999", "9999 tokens has no room in the 1024 positions"),
        *[
            (f"score model --pruner l1 --layers 1 --out new {option} {seed}", f"{option} must be a whole number from 0")
            for option in ("--seed", "--sample-seed")
            for seed in (-1, 2**53, 10**30)
        ],
        (
            "score model --pruner l1 --layers 1 --out new --samples 1000000000",
            "1000000000 samples are wanted, and corpus 'sotu-early' has at most 3772 windows of text",
        ),
        ("score narrow --pruner l1 --layers 1 --out new", "sotu-early holds token ids outside the vocabulary"),
        # prune
        *[
            (PRUNE.replace("0.25", ratio), r"--ratio must be a number in \[0, 1\), not")
            for ratio in ("1.5", "1", "nan", "inf")
        ],
        (PRUNE.replace("0.25", "0.99"), "ratio 0.99 with local scope removes all units of layers.1.attention"),
        (PRUNE.replace("mute", "broken"), "truncated or changed"),
        (PRUNE.replace("mute", "gpt2"), "the weights of model .* are not there"),
        (PRUNE.replace("taylor", "foreign"), "foreign.safetensors is not a file of scores written by mpstudy"),
        (PRUNE.replace("taylor", "cut"), "cut.safetensors is not a file of scores written by mpstudy"),
        (PRUNE.replace("taylor", "absent"), "there is no file of scores absent.safetensors"),
        (PRUNE.replace("taylor", "deeper"), "the scores do not fit the model: it has no layers.9.mlp"),
        (PRUNE.replace("taylor", "wider"), "the scores do not fit the model: layers.1.mlp has 24 units"),
        (PRUNE.replace("taylor", "nan"), "the scores of layers.1.mlp are not finite"),
        (PRUNE.replace("out new", "out model"), "exists and is not a pruned checkpoint; choose another folder"),
        (PRUNE.replace("out new", "out book.txt"), "exists and is not a pruned checkpoint; choose another folder"),
        # evaluate
        (EVALUATE.replace("model", "mute"), "cannot load the Tokenizer of "),
        (EVALUATE.replace("model", "broken"), "truncated or changed"),
        (EVALUATE.replace("model", "sick"), "the evaluation loss is nan"),
        (EVALUATE.replace("model", "narrow"), "book.txt holds token ids outside the vocabulary of .*narrow"),
        (EVALUATE.replace("book", "short"), "text too short: 10 tokens, the window needs 16"),
        (EVALUATE.replace("book", "latin"), "cannot read the text .*latin.txt': 'utf-8' codec"),
        (EVALUATE.replace("book", "wide"), "wide.txt': 'utf-8' codec .*; allowed is UTF-8"),
        (EVALUATE.replace("book", "wider"), "wider.txt': it holds zero bytes, as UTF-16 does"),
        (EVALUATE.replace("book", "blank"), "the text .*blank.txt' is empty"),
        (EVALUATE.replace("book", "absent"), "cannot read the text .*absent.txt': .*No such file"),
        (EVALUATE.replace("book.txt", "model"), "cannot read the text .*model': .*Is a directory"),
        (EVALUATE.replace("--text book.txt", "--corpus alpaca-demo2"), "unknown .*corpus 'alpaca-demo2'; known: "),
        (EVALUATE.replace("window 16", "window 1"), "--window must be a whole number of at least 2, not 1"),
        ("evaluate model", "needs a text or tasks: --text FILE, --corpus NAME, both"),
        (EVALUATE + "--corpus wiki", "corpus 'wiki' is bundled; local copies are of wikitext2"),
        (EVALUATE + "--max-windows 0", "--max-windows must be a whole number of at least 1, not 0"),
        (EVALUATE + "--max-windows -3", "--max-windows must be a whole number of at least 1, not -3"),
        (EVALUATE + "--tasks facts mmlu", "unknown zero-shot task 'mmlu'; known: agreement, agreement_far, "),
        (EVALUATE + "--tasks facts --limit 0", "--limit must be a whole number of at least 1, not 0"),
        # recover
        (RECOVER + "--lr 0", r"--lr must be a finite number > 0, not 0\.0"),
        (RECOVER + "--lr nan", "--lr must be a finite number > 0, not nan"),
        (RECOVER + "--dropout 1", r"--dropout must be a number in \[0, 1\), not 1\.0"),
        (RECOVER + "--r -1", "--r must be a whole number of at least 1, not -1"),
        (RECOVER + "--rows 11", "--rows 11 of 10 training rows: allowed is 1 to 10"),
        (RECOVER + "--rows 0", "--rows must be a whole number of at least 1, not 0"),
        (RECOVER + "--validation 12", "validation = 12 of 12 rows: allowed is 1 to 11"),
        (RECOVER + "--cutoff 10", "no instruction row has a response within the first 10 tokens"),
        (RECOVER.replace("out new", "out model"), "exists and is not a pruned checkpoint; choose another folder"),
        (RECOVER.replace("recover model", "recover mute"), "cannot load the Tokenizer of "),
        (RECOVER.replace("recover model", "recover endless"), "recovery needs a tokenizer with an end-of-text token"),
        (RECOVER.replace("recover model", "recover sick"), "the recovery validation_loss is nan at step 0"),
    ],
)  # fmt: skip
def test_a_bad_input_is_one_line_and_status_2(bad, command, message, capfd, monkeypatch):
    monkeypatch.chdir(bad)
    capfd.readouterr()
    assert run(command, bad) == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("step 0/")]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0])
    assert not (bad / "new").exists() and not (bad / "new.safetensors").exists()


@pytest.mark.slow
def test_the_process_ends_with_status_2_and_one_line(home):
    command = [sys.executable, "-m", "mpstudy", "score", "mute", "--pruner", "wanda", "--layers", "1", "--out", "x"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: unknown pruner 'wanda'; known: ") and done.stderr.count("\n") == 1


def test_a_refused_option_is_found_before_the_model_is_loaded(bad, monkeypatch):
    monkeypatch.setattr(models, "load_model", lambda *arguments, **more: pytest.fail("loaded a model"))
    monkeypatch.chdir(bad)
    bad_options = [
        SCORE.replace("batch.npy", "large.npy"), SCORE.replace("new.safetensors", "model"), SCORE + "--set rho=1",
        PRUNE.replace("0.25", "1.5"), PRUNE.replace("out new", "out model"), PRUNE.replace("taylor", "foreign"),
        EVALUATE + "--max-windows 0", EVALUATE + "--tasks x", EVALUATE.replace("book", "short"),
        RECOVER + "--lr 0", RECOVER + "--rows 0", RECOVER.replace("out new", "out model"),
    ]  # fmt: skip
    assert [run(command, bad) for command in bad_options] == [2] * len(bad_options)


# --- Manuals ---------------------------------------------------------------------------------------------------------


def manual(name: str, capsys) -> str:
    with pytest.raises(SystemExit) as done:
        __main__.main([name, "--help"])
    assert done.value.code == 0
    return capsys.readouterr()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manual_has_examples_that_are_understood(name, capsys, monkeypatch):
    examples = [line for line in manual(name, capsys).splitlines() if line.startswith("  python -m mpstudy")]
    taken = []
    place = next(module for module in (prune, recover, model) if hasattr(module, f"_{name}"))
    monkeypatch.setattr(place, f"_{name}", taken.append)
    for line in examples:
        assert shlex.split(line)[3] == name
        assert __main__.main(shlex.split(line)[3:]) == 0
    assert taken and len(taken) == len(examples)


def test_recovery_has_the_recipes_defaults(monkeypatch, home):
    taken = []
    monkeypatch.setattr(recover, "_recover", taken.append)
    assert run("recover model --out x", home) == 0
    assert vars(taken[0]).items() >= vars(Recipe()).items()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps=3", ("steps", 3)), ("proximal=true", ("proximal", True)), ("proximal=false", ("proximal", False)),
        ("lr=1e-4", ("lr", 1e-4)), ("rho=0.5", ("rho", 0.5)), ("noise=relative", ("noise", "relative")),
        ("a=b=c", ("a", "b=c")), ("a=-2", ("a", -2)),
    ],
)  # fmt: skip
def test_settings_are_read_as_what_they_look_like(text, expected):
    key, value = inputs.setting(text)
    assert (key, value) == expected and type(value) is type(expected[1])
