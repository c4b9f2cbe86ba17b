"""Pruned checkpoints come back bit for bit; anything damaged, foreign or executable is refused."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from helpers.folders import SPY, booby_trap, change_config
from helpers.tiny import byte_tokenizer, cast, pruned_model, tiny_folder, tiny_model, tokens
from safetensors.torch import load_file, save_file

from mpstudy.errors import StudyError
from mpstudy.inputs import models
from mpstudy.structure import checkpoint, surgery

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def saved(tmp_path) -> Path:
    return checkpoint.save_pruned(pruned_model(), tmp_path / "pruned", meta={"ratio": 0.5})


def assert_same(first, second) -> None:
    """Equal names, dtypes and bits of all tensors."""
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype and torch.equal(value, second[name]), name


def change_facts(folder: Path, **changes) -> None:
    path = folder / "pruned.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_loads_back_bit_for_bit(tmp_path, tied, dtype):
    model = cast(pruned_model(tie_word_embeddings=tied), dtype)
    loaded = checkpoint.load_pruned(checkpoint.save_pruned(model, tmp_path / "pruned"))
    assert_same(model, loaded)
    assert not loaded.training
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    batch = tokens()
    with torch.inference_mode():
        assert torch.equal(model(batch).logits, loaded(batch).logits)


def test_biases_come_back_too(tmp_path):
    model = pruned_model(attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(3))
    assert_same(model, checkpoint.load_pruned(checkpoint.save_pruned(model, tmp_path / "pruned")))


def test_layers_of_different_size_come_back(saved):
    counts = surgery.unit_counts(checkpoint.load_pruned(saved))
    assert counts == surgery.unit_counts(pruned_model()) == checkpoint.read_facts(saved)["units"]
    assert counts["layers.0.mlp"] != counts["layers.1.mlp"]


def test_a_tied_embedding_is_stored_once(tmp_path):
    folder = checkpoint.save_pruned(pruned_model(tie_word_embeddings=True), tmp_path / "pruned")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_the_folder_holds_data_only(tmp_path):
    folder = checkpoint.save_pruned(
        pruned_model(), tmp_path / "pruned", tokenizer=byte_tokenizer(), meta={"ratio": 0.5}
    )
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}
    assert checkpoint.read_facts(folder)["meta"] == {"ratio": 0.5}
    assert models.load_tokenizer(str(folder))("a").input_ids == byte_tokenizer()("a").input_ids


@pytest.mark.parametrize("name", models.DTYPES)
def test_load_model_takes_the_folder_and_a_dtype(saved, name):
    loaded = models.load_model(str(saved), dtype=name, device="cpu")
    assert_same(loaded, cast(pruned_model(), models.DTYPES[name]))
    assert torch.equal(loaded.model.rotary_emb.inv_freq, pruned_model().model.rotary_emb.inv_freq)


def test_the_loaded_model_writes_text_with_its_cache(saved):
    loaded, prompt = checkpoint.load_pruned(saved), tokens(2, 5)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = loaded.generate(prompt, use_cache=True, **settings)
    assert cached.shape == (2, 13)
    assert torch.equal(cached, loaded.generate(prompt, use_cache=False, **settings))


# --- Saving ------------------------------------------------------------------------------------------------------


def test_an_own_checkpoint_is_replaced_whole(saved):
    (saved / "left-over.json").touch()
    model = pruned_model(seed=2)
    assert checkpoint.save_pruned(model, saved) == saved
    assert_same(model, checkpoint.load_pruned(saved))
    assert not (saved / "left-over.json").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["pruned"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "pruned").mkdir()
    assert_same(pruned_model(), checkpoint.load_pruned(checkpoint.save_pruned(pruned_model(), tmp_path / "pruned")))


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match="exists and is not a pruned checkpoint"):
        checkpoint.save_pruned(pruned_model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "pruned").write_text("a file")
    with pytest.raises(StudyError, match="exists and is not a pruned checkpoint"):
        checkpoint.save_pruned(pruned_model(), tmp_path / "pruned")
    with pytest.raises(StudyError, match="cannot write to the folder .*: Not a directory"):
        checkpoint.save_pruned(pruned_model(), tmp_path / "pruned" / "below" / "it")
    assert (tmp_path / "pruned").read_text() == "a file"


@pytest.mark.parametrize("old", [False, True])
def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch, old):
    target = tmp_path / "pruned"
    if old:
        checkpoint.save_pruned(pruned_model(), target)

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_pruned(pruned_model(seed=2), target)
    assert [path.name for path in tmp_path.iterdir()] == (["pruned"] if old else [])
    if old:
        assert_same(pruned_model(), checkpoint.load_pruned(target))


def test_no_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**12 - 10**5, 10**5))
    with pytest.raises(StudyError, match=r"no space for a checkpoint in .*GB needed, 0.00 GB free"):
        checkpoint.save_pruned(pruned_model(), tmp_path / "pruned")
    assert not list(tmp_path.iterdir())


# --- Refusing ----------------------------------------------------------------------------------------------------


def test_generation_settings_come_back(tmp_path):
    model = pruned_model()
    model.generation_config.update(do_sample=True, temperature=0.3, eos_token_id=[0, 7])
    loaded = checkpoint.load_pruned(checkpoint.save_pruned(model, tmp_path / "pruned"))
    assert loaded.generation_config.temperature == 0.3 and loaded.generation_config.eos_token_id == [0, 7]


def test_several_chat_templates_come_back(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    folder = checkpoint.save_pruned(pruned_model(), tmp_path / "pruned", tokenizer=tokenizer)
    assert models.load_tokenizer(str(folder)).chat_template == tokenizer.chat_template
    checkpoint.load_pruned(folder)
    (name,) = [name for name in checkpoint.read_facts(folder)["files"] if "tool_use" in name]
    (folder / name).write_text("{{ other }}")
    with pytest.raises(StudyError, match="tool_use.jinja is truncated or changed"):
        checkpoint.load_pruned(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("save", [checkpoint.save_pruned, checkpoint.save_standard])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, bad, save):
    model = tiny_model()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = bad
    with pytest.raises(
        StudyError, match="the weights of model.layers.1.mlp.up_proj.weight are not finite in float32: nothing"
    ):
        save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def _truncate(folder):
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)


def _flip_a_bit(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def _no_weights(folder):
    (folder / "model.safetensors").unlink()


def _no_config(folder):
    (folder / "config.json").unlink()


def _other_counts(folder):
    units = checkpoint.read_facts(folder)["units"]
    change_facts(folder, units=units | {"layers.0.mlp": units["layers.0.mlp"] + 1})


def _fewer_counts(folder):
    units = checkpoint.read_facts(folder)["units"]
    del units["layers.1.attention"]
    change_facts(folder, units=units)


def _negative_count(folder):
    change_facts(folder, units=checkpoint.read_facts(folder)["units"] | {"layers.0.mlp": -1})


def _counts_as_text(folder):
    change_facts(folder, units=checkpoint.read_facts(folder)["units"] | {"layers.0.mlp": "12"})


def _counts_as_list(folder):
    change_facts(folder, units=[1, 2])


def _newer_format(folder):
    change_facts(folder, format=2)


def _cut_facts(folder):
    (folder / "pruned.json").write_text('{"format": 1, "units"')


def _binary_facts(folder):
    (folder / "pruned.json").write_bytes(b"\xff\xfe\x00")


def _facts_as_list(folder):
    (folder / "pruned.json").write_text("[1]")


def _facts_of_another(folder):
    (folder / "pruned.json").write_text('{"format": 1}')


def _changed_config(folder):
    change_config(folder, rms_norm_eps=1e-3)


def _other_depth(folder):
    change_config(folder, num_hidden_layers=1)
    change_facts(folder, files={})


def _other_family(folder):
    change_config(folder, model_type="gpt2")
    change_facts(folder, files={})


def _renamed_tensor(folder):
    state = load_file(folder / "model.safetensors")
    state["model.norm.wait"] = state.pop("model.norm.weight")
    save_file(state, folder / "model.safetensors")
    change_facts(folder, sha256=checkpoint._sha256(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "model.safetensors is truncated or changed"),
        (_flip_a_bit, "model.safetensors is truncated or changed"),
        (_no_weights, "model.safetensors is missing"),
        (_no_config, "is not a pruned checkpoint of mpstudy"),
        (_other_counts, "is not a pruned checkpoint of mpstudy: .*size mismatch"),
        (_fewer_counts, "is not a pruned checkpoint of mpstudy: .*layers.1.attention"),
        (_negative_count, "is not a pruned checkpoint of mpstudy"),
        (_counts_as_text, "is not a pruned checkpoint of mpstudy"),
        (_counts_as_list, "is not a pruned checkpoint of mpstudy"),
        (_newer_format, "no valid pruned.json"),
        (_cut_facts, "no valid pruned.json"),
        (_binary_facts, "no valid pruned.json"),
        (_facts_as_list, "no valid pruned.json"),
        (_facts_of_another, "no valid pruned.json"),
        (_changed_config, "config.json is truncated or changed"),
        (_other_depth, "is not a pruned checkpoint|does not fit its own config"),
        (_other_family, "is not a pruned checkpoint|no adapter for model family 'gpt2'"),
        (_renamed_tensor, "does not fit its own config: .*model.norm.weight.*model.norm.wait"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(saved, damage, message):
    damage(saved)
    with pytest.raises(StudyError, match=message) as caught:
        models.load_model(str(saved))
    assert "\n" not in str(caught.value)


def test_a_foreign_folder_is_refused(tmp_path):
    folder = tiny_folder(tmp_path / "dense")
    assert not checkpoint.is_pruned(folder)
    with pytest.raises(StudyError, match="no valid pruned.json"):
        checkpoint.load_pruned(folder)


def test_without_its_mark_a_pruned_folder_is_not_read_as_dense(saved):
    (saved / "pruned.json").unlink()
    with pytest.raises(StudyError, match="do not fit its config: .* of another size, first model.layers"):
        models.load_model(str(saved))


def test_a_pickle_is_never_loaded(saved):
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(booby_trap(saved / "executed"))
    with pytest.raises(StudyError, match="model.safetensors is missing"):
        models.load_model(str(saved))
    (saved / "model.safetensors").write_bytes((saved / "pytorch_model.bin").read_bytes())
    change_facts(saved, sha256=checkpoint._sha256(saved / "model.safetensors"))
    with pytest.raises(StudyError, match="is not a pruned checkpoint"):
        models.load_model(str(saved))
    assert not (saved / "executed").exists()


@pytest.mark.parametrize("kind", ["llama", "unheard-of"])
def test_code_in_a_checkpoint_is_never_executed_nor_asked_about(saved, kind, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    (saved / "spy.py").write_text(SPY.format(kind=kind))
    change_config(saved, model_type=kind, auto_map={"AutoConfig": "spy.Config", "AutoModelForCausalLM": "spy.Model"})
    change_facts(saved, files={})
    if kind == "llama":
        assert_same(models.load_model(str(saved), device="cpu"), pruned_model())
    else:
        with pytest.raises(StudyError, match="is not a pruned checkpoint"):
            models.load_model(str(saved))
    assert not list(saved.rglob("executed"))


def test_a_family_without_adapter_cannot_be_saved(tmp_path):
    model = tiny_model()
    model.config.model_type = "gpt2"
    with pytest.raises(StudyError, match="no adapter for model family 'gpt2'"):
        checkpoint.save_pruned(model, tmp_path / "pruned")
    assert not list(tmp_path.iterdir())
