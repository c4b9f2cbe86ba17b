"""BOS stands where the tokenizer itself puts it, and a model needs a position for it."""

from types import SimpleNamespace

import pytest
from helpers.tiny import bos_tokenizer, byte_tokenizer

from mpstudy.errors import StudyError
from mpstudy.inputs.tokens import adds_bos, check_room, leading


def test_what_the_tokenizer_adds_decides():
    silent, adding = bos_tokenizer(added=False), bos_tokenizer()
    assert not adds_bos(byte_tokenizer()) and not adds_bos(silent) and adds_bos(adding)
    assert leading(byte_tokenizer()) == leading(silent) == leading(adding, False) == []
    assert leading(adding) == leading(silent, True) == [silent.bos_token_id]


def test_a_bos_that_the_tokenizer_lacks_cannot_be_asked_for():
    with pytest.raises(StudyError, match="cannot begin with BOS: the tokenizer has no such token"):
        leading(byte_tokenizer(), True)


@pytest.mark.parametrize(("window", "first"), [(63, [1]), (64, [])])
def test_a_window_and_what_leads_it_may_fill_the_positions(window, first):
    check_room(SimpleNamespace(max_position_embeddings=64), window, first)


@pytest.mark.parametrize("first", [[1], []])
def test_a_model_without_positions_has_room_for_any_window(first):
    check_room(SimpleNamespace(), 65, first)


@pytest.mark.parametrize(
    ("window", "first", "said"),
    [(64, [1], "64 tokens and BOS has no room .* at most 63"), (65, [], "65 tokens has no room .* at most 64")],
)
def test_a_window_that_is_too_long_says_what_is_allowed(window, first, said):
    with pytest.raises(StudyError, match=said):
        check_room(SimpleNamespace(max_position_embeddings=64), window, first)
