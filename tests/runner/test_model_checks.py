"""What a notebook asks of a model is held against its config and its tokenizer before the first notebook starts."""

import pytest
from helpers.tiny import bos_tokenizer, byte_tokenizer, pruned_model, tiny_folder

from mpstudy.errors import StudyError
from mpstudy.runner import checks
from mpstudy.structure.checkpoint import save_pruned

RECOVERY = {"instructions": "alpaca-demo"}


def with_tokenizer(folder, tokenizer, **changes) -> str:
    tokenizer.save_pretrained(folder)
    return tiny_folder(folder, tokenizer=False, **changes)


@pytest.mark.parametrize("shares", [{"share": 0.9}, {"share": 0.2, "shares": [0.1, 0.9]}])
def test_a_share_for_which_the_units_are_too_few_is_refused(tmp_path, shares):
    model = tiny_folder(tmp_path, tokenizer=False)
    checks.validate({"model": model, "layers": "0-1", "share": 0.2, "shares": [0.1, 0.5]})
    with pytest.raises(StudyError, match="share 0.9 cannot be met: layer 0 has 2 units of attention"):
        checks.validate({"model": model, "layers": "0-1"} | shares)


def test_a_pruned_model_has_fewer_units_than_its_config_says(tmp_path):
    model = save_pruned(pruned_model(), tmp_path / "pruned")
    checks.validate({"model": str(model), "layers": "0-1", "share": 0.9})


def test_an_end_token_outside_the_vocabulary_is_refused_where_there_are_instructions(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    model = with_tokenizer(tmp_path, tokenizer)
    checks.validate({"model": model})
    with pytest.raises(StudyError, match="the end-of-text token 257 is outside the vocabulary of .*, which has 257"):
        checks.validate({"model": model} | RECOVERY)


def test_a_bos_token_outside_the_vocabulary_is_refused_where_the_tokenizer_adds_it(tmp_path):
    checks.validate({"model": with_tokenizer(tmp_path / "silent", bos_tokenizer(added=False))} | RECOVERY)
    checks.validate({"model": with_tokenizer(tmp_path / "fitting", bos_tokenizer(), vocab_size=258)} | RECOVERY)
    with pytest.raises(StudyError, match="the BOS token 257 is outside the vocabulary of .*, which has 257"):
        checks.validate({"model": with_tokenizer(tmp_path / "adding", bos_tokenizer())} | RECOVERY)


def test_a_tokenizer_that_ends_no_text_is_refused(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(StudyError, match="has no end-of-text token, which recovery needs"):
        checks.validate({"model": with_tokenizer(tmp_path, tokenizer)} | RECOVERY)
