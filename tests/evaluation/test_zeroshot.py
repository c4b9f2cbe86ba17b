"""The zero-shot questions are sound, and the real lm-eval scores them as stated."""

import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.hub_copy import ITEMS, write_items
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mpstudy.errors import StudyError
from mpstudy.evaluation import items as makers
from mpstudy.evaluation import passages, zeroshot
from mpstudy.inputs import corpora
from mpstudy.runner import named

OWN = ["facts", "agreement", "agreement_far", "cloze", "cloze_same", "order"]
LIMITS = dict(zip(OWN, (40, 40, 100, 60, 60, 100)))  # enough to see that the bundled model is above chance
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


@pytest.fixture
def texts(monkeypatch):
    """Six documents of distinct ten-word sentences, in place of the bundled texts."""
    documents = [
        "\n\n".join(
            " ".join(f"Speaker {document} said in part {part} that point {point} is good." for point in NUMBERS)
            for part in NUMBERS[:3]
        )
        for document in NUMBERS[:6]
    ]
    monkeypatch.setattr(corpora, "load_texts", lambda name: documents)
    return documents


@pytest.fixture(scope="module")
def tokenizer():
    """One token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<eos>")


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("task", OWN)
def test_items_are_well_formed(task, texts):
    items = zeroshot.items(task)
    assert len(items) >= 15
    n_choices = round(1 / zeroshot.TASKS[task].chance)
    for item in items:
        assert len(set(item["choices"])) == n_choices
        assert 0 <= item["label"] < n_choices
        assert all(choice == choice.strip() and choice for choice in item["choices"])
        assert item["prompt"] == item["prompt"].strip()
    assert len({item["prompt"] for item in items}) == len(items)


@pytest.mark.parametrize("task", OWN)
def test_items_are_the_same_every_time(task, texts):
    assert zeroshot.items(task) == zeroshot.items(task)


@pytest.mark.parametrize("task", OWN)
def test_every_prefix_uses_all_answer_positions_equally(task, texts):
    labels = [item["label"] for item in zeroshot.items(task)]
    n_choices = round(1 / zeroshot.TASKS[task].chance)
    whole_blocks = len(labels) // n_choices * n_choices
    for end in range(n_choices, whole_blocks + 1, n_choices):
        assert set(Counter(labels[:end]).values()) == {end // n_choices}


def test_fact_answers_are_right_and_distractors_false():
    rows = {
        makers.fact_prompt(name, row["subject"]): row for name, table in makers.fact_tables().items() for row in table
    }
    items = zeroshot.items("facts")
    assert len(items) == len(rows) >= 300
    for item in items:
        row = rows[item["prompt"]]
        false = set(item["choices"]) - {row["answer"]}
        assert item["choices"][item["label"]] == row["answer"]
        assert len(false) == 3 and not false & row["also_true"]


def test_fact_tables_are_clean():
    for name, table in makers.fact_tables().items():
        answers = {row["answer"] for row in table}
        for row in table:
            assert row["subject"] == row["subject"].strip() and row["answer"] == row["answer"].strip()
            assert row["answer"] not in row["also_true"], (name, row)
        # A word of `also_true` that no row answers with would be a spelling slip, or say nothing.
        assert set().union(*(row["also_true"] for row in table)) <= answers, name


@pytest.mark.parametrize("task", ["agreement", "agreement_far"])
def test_agreement_is_balanced_at_every_even_limit(task):
    items = zeroshot.items(task)
    for end in range(2, len(items) + 1, 2):
        assert Counter(item["group"] for item in items[:end]) == {"singular": end // 2, "plural": end // 2}


def test_agreement_verb_follows_the_head_and_not_the_attractor():
    labelled = {item["prompt"]: item["choices"][item["label"]] for item in zeroshot.items("agreement")}
    assert labelled["The key to the cabinets"] == "is"
    assert labelled["The keys to the cabinet"] == "are"


def test_far_agreement_has_three_nouns_of_the_other_number_before_the_verb():
    near = {item["prompt"]: item for item in zeroshot.items("agreement")}
    items = zeroshot.items("agreement_far")
    assert len(items) == len(near) >= 300
    for item in items:
        start, clause = item["prompt"].split(" that the ")
        person, place, verb = clause.replace(" from the ", " ").split()
        number = 0 if item["group"] == "plural" else 1
        assert person in {pair[number] for pair in makers.PEOPLE} and place in {pair[number] for pair in makers.PLACES}
        assert verb in makers.PAST and near[start]["group"] == item["group"]
        true, other = item["choices"][item["label"]], item["choices"][1 - item["label"]]
        assert (true, other) in ([pair[::-1] for pair in makers.VERBS] if number == 0 else makers.VERBS)


def test_cloze_asks_for_the_sentence_that_follows(texts):
    for item in zeroshot.items("cloze"):
        answer = item["choices"][item["label"]]
        document = int(item["group"].removeprefix("document "))
        assert f"{item['prompt']} {answer}" in texts[document]
        assert not any(choice in item["prompt"] for choice in item["choices"])
        assert not any(choice in texts[document] for choice in item["choices"] if choice != answer)


def test_cloze_in_the_same_document_offers_equally_long_sentences_of_it(texts):
    items = zeroshot.items("cloze_same")
    assert len(items) >= 15
    for item in items:
        document = int(item["group"].removeprefix("document "))
        assert f"{item['prompt']} {item['choices'][item['label']]}" in texts[document]
        assert all(choice in texts[document] and choice not in item["prompt"] for choice in item["choices"])


def test_a_document_with_too_few_other_sentences_gives_no_item():
    passage = "Here we met men who came in search of work to do. They also want a road that is to go to all of us."
    others = [f"Then {word} of them came to ask for more." for word in NUMBERS[:3]]
    few = f"{passage} We built them in that same year. {' '.join(others[:2])}"
    assert passages.cloze_same_items([few]) == []
    (item,) = passages.cloze_same_items([f"{few} {others[2]}"])
    assert item["prompt"] == passage and set(item["choices"]) == {"We built them in that same year.", *others}


def test_order_offers_the_same_two_sentences_in_both_orders(texts):
    for item in zeroshot.items("order"):
        document = int(item["group"].removeprefix("document "))
        true, other = item["choices"][item["label"]], item["choices"][1 - item["label"]]
        assert f"{item['prompt']} {true}" in texts[document]
        first, second = passages.sentences(true)
        assert other == f"{second} {first}"


def test_cloze_of_too_few_documents_is_refused(texts):
    with pytest.raises(StudyError, match="sentences of other documents"):
        passages.cloze_items(texts[:1])


def test_abbreviations_and_notes_do_not_split_sentences():
    assert passages.sentences("Mr. Speaker, I thank you.\nWe went to  St. Louis. Good!") == [
        "Mr. Speaker, I thank you.",
        "We went to St. Louis.",
        "Good!",
    ]


def test_rows_are_json_and_complete(model, tokenizer, texts):
    rows = zeroshot.evaluate_tasks(model, tokenizer, ["cloze", "facts"], limit=8)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["task"] for row in rows] == ["cloze", "facts"]
    for row in rows:
        task = zeroshot.TASKS[row["task"]]
        assert row["metric"] == task.metric and row["chance"] == task.chance and row["n_items"] == 8
        assert row["value"] * 8 == row["correct"].count("1") and set(row["correct"]) <= set("01")
        assert len(row["correct"]) == 8 and row["batch_size"] == 16
        assert row["stderr"] == pytest.approx((row["value"] * (1 - row["value"]) / 8) ** 0.5)


@pytest.mark.parametrize(
    ("task", "by_length"), [("agreement_far", False), ("facts", False), ("cloze_same", True), ("order", False)]
)
def test_lm_eval_scores_the_first_items_as_stated(model, tokenizer, texts, task, by_length):
    (row,) = zeroshot.evaluate_tasks(model, tokenizer, [task], limit=12)
    hits = [is_right(model, tokenizer, item, by_length) for item in zeroshot.items(task)[:12]]
    assert 0 < sum(hits) < 12
    assert row["correct"] == "".join(str(int(hit)) for hit in hits)


def is_right(model, tokenizer, item: dict, by_length: bool) -> bool:
    """The decision without lm-eval: the choice of the largest log-probability, per character if asked."""
    scores = []
    for choice in item["choices"]:
        tokens = torch.tensor([tokenizer.encode(f"{item['prompt']} {choice}")])
        with torch.no_grad():
            logs = model(tokens).logits[0, :-1].log_softmax(-1)
        each = logs.gather(1, tokens[0, 1:, None])[-len(f" {choice}".encode()) :, 0]
        scores.append(each.sum().item() / (len(choice) if by_length else 1))
    return int(np.argmax(scores)) == item["label"]


def test_generators_mode_and_tokenizer_are_left_alone(model, tokenizer):
    model.train()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    zeroshot.evaluate_tasks(model, tokenizer, ["agreement"], limit=2)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert model.training
    assert tokenizer.pad_token is None


def test_nothing_is_printed(model, tokenizer, capsys):
    zeroshot.evaluate_tasks(model, tokenizer, ["agreement"], limit=2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("names", [["fact"], ["facts", "hella"]])
def test_unknown_task_names_the_known_ones(names):
    with pytest.raises(StudyError, match="known: agreement, agreement_far, arc_challenge, arc_easy, boolq, cloze"):
        zeroshot.check_tasks(names)


@pytest.mark.parametrize("names", [[], "facts", ["facts", "facts"]])
def test_task_list_must_be_a_list_of_distinct_names(names):
    with pytest.raises(StudyError, match="distinct names"):
        zeroshot.check_tasks(names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 0.5},
        {"limit": True},
        {"batch_size": 0},
        {"batch_size": None},
        {"batch_size": "auto"},
    ],
)
def test_wrong_numbers_are_refused(model, tokenizer, wrong):
    with pytest.raises(StudyError, match=f"{next(iter(wrong))} must be a whole number"):
        zeroshot.evaluate_tasks(model, tokenizer, ["facts"], **wrong)


# --- The tasks of the published study ------------------------------------------------------------------------------


@pytest.fixture
def hub_copy(tmp_path, monkeypatch):
    """A local copy of the seven tasks."""
    write_items(tmp_path)
    monkeypatch.setenv("MPSTUDY_HUB_DIR", str(tmp_path))


def test_the_seven_tasks_of_the_papers_run_from_local_copies(model, tokenizer, hub_copy):
    rows = zeroshot.evaluate_tasks(model, tokenizer, list(ITEMS))
    assert {row["task"]: row["metric"] for row in rows} == {
        "boolq": "acc", "winogrande": "acc", "arc_easy": "acc", "arc_challenge": "acc_norm", "piqa": "acc_norm",
        "hellaswag": "acc_norm", "openbookqa": "acc_norm",
    }  # fmt: skip
    assert all(row["n_items"] == 3 and row["value"] in (0, 1) for row in rows)  # the three items are one
    prompts = {
        "arc_easy": "Question: What is hot?\nAnswer:", "openbookqa": "The sun is", "piqa": "Question: To cut\nAnswer:",
    }  # fmt: skip
    for row in rows:
        if row["task"] in prompts:
            item = ITEMS[row["task"]]
            options = item["choices"]["text"] if "choices" in item else [item["sol1"], item["sol2"]]
            question = {"prompt": prompts[row["task"]], "choices": options, "label": 0}
            assert row["value"] == is_right(model, tokenizer, question, row["metric"] == "acc_norm")


def test_other_items_are_other_content(hub_copy, tmp_path):
    before = zeroshot.content("boolq")
    with (tmp_path / "boolq" / "validation.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(ITEMS["boolq"]) + "\n")
    assert zeroshot.content("boolq") != before and zeroshot.content("boolq", 2) != zeroshot.content("boolq", 3)


def test_a_task_without_hub_or_copy_names_where_it_may_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("MPSTUDY_HUB_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        StudyError, match=f"task 'piqa' cannot be loaded .* accepted in {tmp_path}/piqa: the validation"
    ):
        named.fetch({"tasks": ["facts", "piqa"]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "limit"),
    [("facts", 40), ("agreement", 40), ("agreement_far", 60), ("cloze", 30), ("order", 60)],
)
def test_dense_bundled_model_is_above_chance(task, limit):
    from mpstudy.inputs.models import load_model, load_tokenizer

    name = "smollm2-135m-instruct"
    (row,) = zeroshot.evaluate_tasks(load_model(name), load_tokenizer(name), [task], limit=limit)
    assert row["value"] - 1.96 * row["stderr"] > row["chance"]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "choices"), [("cloze", 4), ("cloze_same", 4), ("order", 2)])
def test_passages_of_the_bundled_addresses_are_sound(task, choices):
    items = zeroshot.items(task)
    assert len(items) >= 300
    assert len({item["prompt"] for item in items}) == len(items)
    for item in items:
        assert len(set(item["choices"])) == choices
        assert not any(choice in item["prompt"] for choice in item["choices"])
        assert not any("[" in text or "\n" in text for text in [item["prompt"], *item["choices"]])
