"""Instructions become examples, and examples batches, in which each is on its own."""

import pytest
import torch
from helpers.tiny import BYTES, ROWS, bos_tokenizer, byte_tokenizer, tiny_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from mpstudy.errors import StudyError
from mpstudy.recovery import examples


@pytest.fixture(scope="module")
def tokenizer():
    """A vocabulary learnt from the rows, for which a prompt is short."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [examples.alpaca_prompt(row) + row["output"] for row in ROWS]
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=BYTES, special_tokens=["<eos>"], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def prompt_tokens(tokenizer, row) -> int:
    return len(tokenizer(examples.alpaca_prompt(row)).input_ids)


# --- Prompts and labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", ["", " \n"])
def test_rows_with_an_empty_answer_teach_nothing(tokenizer, empty):
    rows = [ROWS[0], ROWS[1] | {"output": empty}, ROWS[2]]
    assert examples.encode(tokenizer, rows, 400) == examples.encode(tokenizer, [ROWS[0], ROWS[2]], 400)
    with pytest.raises(StudyError, match="no instruction row has a response"):
        examples.encode(tokenizer, rows[1:2], 400)


def test_bos_is_put_first_or_not_as_asked():
    plain, silent = byte_tokenizer(), bos_tokenizer(added=False)
    (with_bos,), (without,) = (examples.encode(silent, ROWS[:1], 900, bos=bos) for bos in (True, False))
    assert with_bos[0][0] == silent.bos_token_id and with_bos[0][1:] == without[0]
    assert without == examples.encode(plain, ROWS[:1], 900)[0]


def test_tokens_outside_the_vocabulary_are_named():
    encoded = [([1, 7, 3], [1, 7, 3]), ([2], [2])]
    examples.check_vocabulary(encoded, 8)
    with pytest.raises(StudyError, match="the token id 7, which is outside the model's vocabulary of 7"):
        examples.check_vocabulary(encoded, 7)


def test_the_prompt_is_alpacas():
    assert examples.alpaca_prompt({"instruction": "Add.", "input": "1 and 2", "output": "3"}) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )
    assert examples.alpaca_prompt({"instruction": "Greet.", "input": "", "output": "Hello"}) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nGreet.\n\n### Response:\n"
    )


def test_the_loss_is_on_the_response_and_its_end(tokenizer):
    ((ids, labels),) = examples.encode(tokenizer, ROWS[:1], 1000)
    length = prompt_tokens(tokenizer, ROWS[0])
    assert tokenizer.decode(ids[:length]) == examples.alpaca_prompt(ROWS[0])
    assert tokenizer.decode(ids[length:]) == ROWS[0]["output"] + "<eos>"
    assert labels == [-100] * length + ids[length:]


def test_long_rows_are_cut_and_rows_without_response_left_out(tokenizer):
    lengths = [prompt_tokens(tokenizer, row) for row in ROWS[:2]]
    assert lengths[0] > lengths[1] + 3
    ((ids, labels),) = examples.encode(tokenizer, ROWS[:2], lengths[1] + 3)
    assert len(ids) == len(labels) == lengths[1] + 3
    assert sum(label != -100 for label in labels) == 3


@pytest.mark.parametrize("rows", [[], ROWS])
def test_rows_without_any_response_are_an_error(tokenizer, rows):
    with pytest.raises(StudyError, match="no instruction row has a response within the first 20 tokens"):
        examples.encode(tokenizer, rows, 20)


def test_a_tokenizer_without_end_token_is_an_error():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(StudyError, match="end-of-text token"):
        examples.encode(tokenizer, ROWS, 1000)


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_targets_are_counted(tokenizer, loss_on):
    encoded = examples.encode(tokenizer, ROWS[:3], 1000, loss_on)
    lengths = [len(tokenizer(row["output"]).input_ids) + 1 for row in ROWS[:3]]
    if loss_on == "all":
        assert all(labels == [-100] + ids[1:] for ids, labels in encoded)
        lengths = [len(ids) - 1 for ids, _ in encoded]
    assert examples.targets(encoded) == sum(lengths)


# --- Batches -----------------------------------------------------------------------------------------------------


def made(*lengths):
    """Examples of the given lengths whose tokens are all different."""
    tokens = iter(range(1, 1000))
    rows = [[next(tokens) for _ in range(length)] for length in lengths]
    return [(ids, [-100, *ids[1:]]) for ids in rows]


def test_padding_has_neither_attention_nor_loss():
    batch = examples.padded([([5, 6, 7], [-100, 6, 7]), ([8, 9], [-100, 9])])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, 9, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_packing_counts_positions_anew():
    batch = examples.packed([[([5, 6, 7], [-100, 6, 7]), ([8, 9], [-100, 9])], [([4, 3], [-100, 3])]])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 9], [4, 3, 0, 0, 0]],
        "position_ids": [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]],
        "labels": [[-100, 6, 7, -100, 9], [-100, 3, -100, -100, -100]],
    }


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_every_example_is_in_one_window_that_is_not_too_long(packing, rows):
    several = made(3, 8, 2, 5, 5, 1, 7)
    groups = examples.split(several, rows, 8, packing)
    windows = [window for group in groups for window in group]
    assert sorted(example for window in windows for example in window) == sorted(several)
    assert all(len(group) <= rows for group in groups)
    assert all(sum(len(ids) for ids, _ in window) <= 8 for window in windows)
    assert packing or all(len(window) == 1 for window in windows)


def test_packing_fills_windows_first_fit_longest_first():
    groups = examples.split(made(3, 8, 2, 5, 5, 1), 2, 8, True)
    assert [[[len(ids) for ids, _ in window] for window in group] for group in groups] == [[[8], [5, 3]], [[5, 2, 1]]]


def test_packed_examples_do_not_see_each_other():
    model, several = tiny_model(), made(4, 6, 2)
    batch = examples.packed([made(13), several])
    batch.pop("labels")
    with torch.no_grad():
        whole = model(**batch, use_cache=False).logits[1, :12]
        alone = torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids, _ in several])
        blind = model(input_ids=batch["input_ids"], use_cache=False).logits[1, :12]
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-5)
    assert not torch.allclose(blind, alone, rtol=0, atol=1e-2)


def test_the_loss_is_that_of_each_target_alone():
    model, several = tiny_model(), made(4, 6, 2)
    expected = 0.0
    with torch.no_grad():
        for ids, labels in several:
            logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            expected -= sum(logs[i, label].item() for i, label in enumerate(labels[1:]) if label != -100)
        for batch in (examples.packed([several[:2], several[2:]]), examples.padded(several)):
            assert examples.loss_sum(model, batch, "cpu").item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_targets_has_neither_loss_nor_gradient():
    model = tiny_model()
    loss = examples.loss_sum(model, examples.silenced(examples.packed([made(4, 3)])), "cpu")
    loss.backward()
    assert loss.item() == 0
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_an_example_begins_with_bos_where_a_text_does(loss_on):
    plain, with_bos = byte_tokenizer(), bos_tokenizer()
    for (ids, labels), (more, their) in zip(
        *(examples.encode(each, ROWS[:3], 1000, loss_on) for each in (plain, with_bos)), strict=True
    ):
        assert more == [with_bos.bos_token_id, *ids]
        assert their == [-100, *(ids[:1] if loss_on == "all" else labels[:1]), *labels[1:]]
