"""All that parameters name is fetched before the work, and only what a hub alone has lets a notebook reach the hub."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.folders import hub_cache
from helpers.tiny import tiny_folder

from mpstudy.errors import StudyError
from mpstudy.inputs import hub, models
from mpstudy.runner.named import fetch, needs_hub


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No hub, and an empty cache of it."""
    monkeypatch.setattr(models.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(models.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(hub.LOCAL_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


BUNDLED = {"model": "smollm2-135m-instruct", "corpora": ["wiki", "novel"], "calibration": "sotu-early"}
OF_HUB = [
    ({"calibration": "c4"}, "corpus 'c4'"),
    ({"corpora": ["wiki", "ptb"]}, "corpus 'ptb'"),
    ({"instructions": "alpaca-cleaned"}, "corpus 'alpaca-cleaned'"),
    ({"changes": ["sample", "corpus-bookcorpus"]}, "corpus 'bookcorpus'"),
    ({"compared_changes": ["corpus-wikitext2"]}, "corpus 'wikitext2'"),
    ({"tasks": ["facts", "boolq"]}, "task 'boolq'"),
]


def test_what_is_bundled_needs_no_hub(folder):
    own = BUNDLED | {"instructions": "alpaca-demo", "tasks": ["facts", "agreement"], "changes": ["corpus-wiki", "int8"]}
    assert not needs_hub({}) and not needs_hub(own) and not needs_hub({"model": folder, "references": [folder]})
    fetch(own | {"seeds": [0, 1], "eta": 0.1})


@pytest.mark.parametrize(("named", "missing"), OF_HUB)
def test_a_corpus_or_task_of_the_hub_is_missed_before_the_work(named, missing):
    assert needs_hub(BUNDLED | named)
    with pytest.raises(StudyError, match=f"{missing} cannot be loaded"):
        fetch(BUNDLED | named)


@pytest.mark.parametrize("named", [{"model": "gemma3-270m"}, {"references": ["gemma3-270m"]}])
def test_an_optional_model_is_missed_before_the_work(named, tmp_path, monkeypatch):
    monkeypatch.setenv("MPSTUDY_CACHE", str(tmp_path / "cache"))
    assert not needs_hub(BUNDLED | named)
    with pytest.raises(StudyError, match="`python -m mpstudy data --for gemma3-270m` fetches it"):
        fetch({"corpora": ["wiki"]} | named)


@pytest.mark.parametrize(("named", "missing"), OF_HUB)
def test_a_local_copy_needs_no_hub(named, missing, tmp_path, monkeypatch):
    monkeypatch.setenv(hub.LOCAL_VARIABLE, str(tmp_path))
    copy = tmp_path / missing.split("'")[1] / "rows.jsonl"
    copy.parent.mkdir()
    copy.write_text(json.dumps({"text": "a"}))
    assert not needs_hub(BUNDLED | named)
    fetch(BUNDLED | named)
    copy.unlink()
    with pytest.raises(StudyError, match="holds no .* split of"):
        fetch(BUNDLED | named)


@pytest.mark.parametrize("role", [{"model": "owner/tiny"}, {"references": ["owner/tiny"]}])
def test_a_hub_model_needs_the_hub_and_is_complete_in_its_cache(role, folder, tmp_path):
    assert needs_hub(role)
    with pytest.raises(StudyError, match="'owner/tiny' is not in the local cache"):
        fetch(role)
    hub_cache(tmp_path, folder)
    fetch(role)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", "the weights of model 'owner/tiny' are not there: no model.safetensors in"),
        ("tokenizer.json", "cannot load the Tokenizer of 'owner/tiny'"),
    ],
)
def test_a_half_cached_reference_is_missed_before_the_work(missing, message, folder, tmp_path):
    (hub_cache(tmp_path, folder) / missing).unlink()
    with pytest.raises(StudyError, match=message):
        fetch({"references": ["owner/tiny"]})


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json"])
def test_a_folder_without_weights_or_tokenizer_is_named(missing, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    fetch({"model": str(copy)})
    (copy / missing).unlink()
    with pytest.raises(StudyError, match=f"{copy}"):
        fetch({"model": str(copy)})


def test_every_shard_of_the_weights_is_looked_for(folder, tmp_path):
    snapshot = hub_cache(tmp_path, folder)
    names = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    index = {"weight_map": {"lm_head.weight": names[0], "model.norm.weight": names[1]}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model.safetensors").rename(snapshot / names[0])
    with pytest.raises(StudyError, match=f"no {names[1]} in its folder"):
        fetch({"references": ["owner/tiny"]})
    shutil.copy(snapshot / names[0], snapshot / names[1])
    fetch({"references": ["owner/tiny"]})
