"""What is known of inputs before anything heavy is imported."""

import subprocess
import sys

import pytest

from mpstudy.errors import StudyError
from mpstudy.inputs import corpora, early


def config(folder, text: str):
    (folder / "config.json").write_text(text)
    return early.plain_config(str(folder))


def test_a_config_is_read_without_transformers(tmp_path):
    text = '{"model_type": "llama", "num_hidden_layers": 6, "max_position_embeddings": 64, "hidden_size": 8}'
    expected = {"model_type": "llama", "num_hidden_layers": 6, "max_position_embeddings": 64}
    assert vars(config(tmp_path, text)) == expected
    assert vars(config(tmp_path, '{"model_type": "gpt2", "num_hidden_layers": "6"}')) == {"model_type": "gpt2"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": 3}', "[" * 100_000])
def test_a_config_that_says_nothing_is_none(tmp_path, text):
    assert config(tmp_path, text) is None
    assert early.plain_config(str(tmp_path / "absent")) is None


@pytest.mark.parametrize("name", ["", "absent", "./absent", "/absent", "~/absent", "a/b/c"])
def test_no_model_has_such_a_name(name):
    with pytest.raises(StudyError, match="no model '.*': give a bundled name"):
        early.check_model(name)


def test_a_folder_and_a_bundled_name_may_be_a_model(tmp_path):
    assert early.check_model(str(tmp_path)) == str(tmp_path)
    assert early.check_model("smollm2-135m-instruct") == "smollm2-135m-instruct"


def test_samples_are_at_most_the_windows_of_the_corpus(monkeypatch):
    """Two texts of 2,000 and 1,000 characters have at most 12,000 bytes, hence tokens, hence windows."""
    read = []
    monkeypatch.setattr(corpora, "load_texts", lambda name: read.append(name) or ["a" * 2000, "b" * 1000])
    early.check_samples("wiki", 12_000)
    with pytest.raises(StudyError, match="12001 samples are wanted, and corpus 'wiki' has at most 12000 windows"):
        early.check_samples("wiki", 12_001)
    assert read == ["wiki", "wiki"]
    early.check_samples("wiki", early.FEW_SAMPLES)
    assert read == ["wiki", "wiki"]


def test_no_more_of_a_corpus_is_read_than_its_bound_takes(monkeypatch):
    def endless(name):
        while True:
            yield "a" * 1000

    monkeypatch.setattr(corpora, "load_texts", endless)
    early.check_samples("bookcorpus", 1_000_000)


def test_nothing_heavy_is_imported():
    code = "import sys, mpstudy.inputs.early; print({'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
