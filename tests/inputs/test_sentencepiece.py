"""A SentencePiece model without tokenizer.json, as LLaMA-1 and Vicuna bring it, loads and gives SentencePiece's ids."""

import io
import json

import pytest
import sentencepiece
from helpers.tiny import ROWS, tiny_folder

from mpstudy.inputs import models
from mpstudy.inputs.tokens import adds_bos, leading
from mpstudy.recovery.examples import alpaca_prompt, encode

LINES = [alpaca_prompt(row) + row["output"] for row in ROWS]
# None begins with a space: there transformers has one word mark, where SentencePiece has two.
TEXTS = [*LINES[:2], "Say it.", "two  spaces ", "a\n\nb\tc", "\nnumber", "naïve 東京 🙂", "0123456789", "."]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The file of a byte-fallback BPE model with LLaMA's settings, and the processor that reads it."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(LINES).split("\n")), model_writer=written, vocab_size=350, model_type="bpe",
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    return written.getvalue(), sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.fixture(params=[True, False, None], ids=["legacy", "corrected", "unsaid"])
def folder(request, pieces, tmp_path):
    """A Llama with ``tokenizer.model`` and the settings that the conversions of LLaMA-1 and Vicuna have beside it."""
    folder = tiny_folder(tmp_path / "vicuna", tokenizer=False, vocab_size=350, bos_token_id=1, eos_token_id=2)
    (tmp_path / "vicuna" / "tokenizer.model").write_bytes(pieces[0])
    settings = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>",
        "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None, "model_max_length": 2048,
    }  # fmt: skip
    if request.param is not None:
        settings["legacy"] = request.param
    (tmp_path / "vicuna" / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_are_sentencepieces(folder, pieces, text):
    tokenizer = models.load_tokenizer(folder)
    expected = pieces[1].encode(text)
    assert tokenizer(text, add_special_tokens=False).input_ids == expected
    assert tokenizer(text).input_ids == [1, *expected]
    assert tokenizer.decode(expected) == text


def test_texts_and_examples_begin_with_its_bos(folder, pieces):
    tokenizer = models.load_tokenizer(folder)
    assert adds_bos(tokenizer) and leading(tokenizer) == [1] and tokenizer.pad_token == "</s>"
    ((ids, _),) = encode(tokenizer, ROWS[:1], 1000)
    assert ids == [1, *pieces[1].encode(alpaca_prompt(ROWS[0])), *pieces[1].encode(ROWS[0]["output"]), 2]
