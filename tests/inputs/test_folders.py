"""Damage of a model folder that a loader would pass over is told before anything is loaded."""

import json

import pytest
from helpers.folders import booby_trap
from helpers.tiny import tiny_folder

from mpstudy.cli.inputs import tokenizer_or_none
from mpstudy.errors import StudyError
from mpstudy.inputs.folders import check_folder, has_tokenizer


@pytest.fixture
def folder(tmp_path):
    tiny_folder(tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_folder_passes(folder):
    check_folder(folder)
    assert has_tokenizer(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "pruned.json", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("text", ["{damaged", "", "[]", "3", "[" * 100_000, b"\xff"])
def test_settings_that_are_no_object_are_damaged(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError, match=f"{name} is damaged: it is no JSON"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pruned.json", {"files": None}),
        ("pruned.json", {"meta": 3}),
        ("pruned.json", {"units": []}),
        ("model.safetensors.index.json", {"weight_map": []}),
        ("model.safetensors.index.json", {"weight_map": {"a": 3}}),
    ],
)
def test_parts_that_are_none_are_damaged(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(StudyError, match=f"{name} is damaged: its "):
        check_folder(folder)


def test_pickles_beside_safetensors_are_left_alone_and_alone_refused(folder):
    (folder / "pytorch_model.bin").write_bytes(booby_trap(folder / "executed"))
    check_folder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(StudyError, match="are pickles .pytorch_model.bin., which are never read"):
        check_folder(folder)
    assert not (folder / "executed").exists()


def test_a_damaged_tokenizer_is_not_a_missing_one(folder, tmp_path):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(StudyError, match="cannot load the Tokenizer"):
        tokenizer_or_none(str(folder))
    assert tokenizer_or_none(tiny_folder(tmp_path / "mute", tokenizer=False)) is None
