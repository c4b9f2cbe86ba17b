"""LoRA recovery trains what it says on the tokens it says, repeatably, and its merge is the trained function."""

import copy
import inspect
import json
import math
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.tiny import BYTES, ROWS, encoded, pruned_model, tiny_model, tokens
from peft import set_peft_model_state_dict
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from mpstudy.errors import StudyError
from mpstudy.recovery import lora
from mpstudy.recovery.examples import alpaca_prompt
from mpstudy.recovery.recipe import RULES, Recipe
from mpstudy.structure import checkpoint, surgery

TRAINING, VALIDATION = ROWS[:9], ROWS[9:]
QUICK = Recipe(r=4, alpha=8, lr=1e-2, epochs=2, batch_size=4, warmup_steps=1, cutoff=220)


@pytest.fixture(scope="module")
def tokenizer():
    """A vocabulary learnt from the rows, for which a prompt is short."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [alpaca_prompt(row) + row["output"] for row in ROWS]
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=BYTES, special_tokens=["<eos>"], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="module")
def adapter(tokenizer):
    return lora.train_adapter(pruned_model(), *encoded(tokenizer, QUICK, TRAINING, VALIDATION), recipe=QUICK)


def train(model, tokenizer, seed=0, **changes):
    recipe = Recipe(**vars(QUICK) | changes)
    return lora.train_adapter(model, *encoded(tokenizer, recipe, TRAINING, VALIDATION), recipe=recipe, seed=seed)


def logits(model, batch):
    with torch.inference_mode():
        return model(input_ids=batch).logits


# --- Training ----------------------------------------------------------------------------------------------------


def test_training_lowers_both_losses(adapter):
    history = adapter.meta["history"]
    steps = QUICK.epochs * math.ceil(len(TRAINING) / QUICK.batch_size)
    assert [row["step"] for row in history] == list(range(steps + 1))
    assert {row["steps"] for row in history} == {steps}
    assert [row["step"] for row in history if "validation_loss" in row] == [0, 2, 3, 5, 6]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"] - 0.1
    assert history[-1]["loss"] < history[1]["loss"]


def test_a_step_does_not_depend_on_its_backward_passes(tokenizer):
    whole, parts = (train(tiny_model(), tokenizer, dropout=0.0, micro_batch_size=size) for size in (4, 1))
    for one, other in zip(whole.meta["history"], parts.meta["history"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    for name, value in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], value, rtol=1e-3, atol=1e-4)


def test_a_warm_up_as_long_as_the_training_is_an_error(tokenizer):
    assert QUICK.steps(9) == 6
    with pytest.raises(StudyError, match="warmup_steps 6 must be below the 6 steps of 9 rows"):
        train(tiny_model(), tokenizer, warmup_steps=6)


def test_the_log_is_the_history(tokenizer):
    seen = []
    adapter = lora.train_adapter(
        tiny_model(), *encoded(tokenizer, QUICK, TRAINING, VALIDATION), recipe=QUICK, log=seen.append
    )
    assert seen == adapter.meta["history"] == json.loads(json.dumps(seen))


def test_all_seven_projections_are_trained(adapter):
    for module in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        changed = [value.any() for name, value in adapter.weights.items() if f"{module}.lora_B" in name]
        assert len(changed) == 2 and all(changed)
    assert {value.dtype for value in adapter.weights.values()} == {torch.float32}


def test_the_same_seed_gives_the_same_bits(tokenizer, adapter):
    again = train(pruned_model(), tokenizer)
    assert again.meta == adapter.meta
    assert again.weights.keys() == adapter.weights.keys()
    assert all(torch.equal(value, adapter.weights[name]) for name, value in again.weights.items())
    other = train(pruned_model(), tokenizer, seed=1)
    assert not all(torch.equal(value, adapter.weights[name]) for name, value in other.weights.items())


def test_model_and_random_states_are_left_alone(tokenizer, adapter):
    model = pruned_model()
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    lora.merge_adapter(model, train(model, tokenizer))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_half_precision_model_is_trained_and_merged_in_fp32(tokenizer):
    model = pruned_model().to(torch.bfloat16)
    merged = lora.merge_adapter(model, train(model, tokenizer, epochs=1))
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("tied", [False, True])
def test_layers_of_different_size_can_be_recovered(tokenizer, tied, tmp_path):
    model = pruned_model(tie_word_embeddings=tied)
    merged = lora.merge_adapter(model, train(model, tokenizer))
    counts = surgery.unit_counts(merged)
    assert counts == surgery.unit_counts(model) and counts["layers.0.mlp"] != counts["layers.1.mlp"]
    again = checkpoint.load_pruned(checkpoint.save_pruned(merged, tmp_path / "recovered"))
    assert torch.equal(logits(again, tokens()), logits(merged, tokens()))


def test_unusable_weights_are_named_with_the_step(tokenizer):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(StudyError, match="the recovery validation_loss is nan at step 0"):
        train(model, tokenizer)


@pytest.mark.parametrize(("changes", "step"), [({}, 2), ({"batch_size": 9, "epochs": 1}, 1)])
def test_a_learning_rate_that_diverges_is_named_with_the_step(tokenizer, changes, step):
    with pytest.raises(
        StudyError, match=rf"the recovery (validation_)?loss is nan at step {step}; a lower lr may help"
    ):
        train(tiny_model(), tokenizer, lr=1e30, warmup_steps=0, **changes)


@pytest.mark.slow
def test_real_instructions_train_a_tiny_model():
    from mpstudy.inputs import corpora, models

    tokenizer = models.load_tokenizer("smollm2-135m-instruct")
    rows = corpora.load_instructions("alpaca-demo")
    training, validation = corpora.split_instructions(rows, validation=8, seed=0)
    model = tiny_model(vocab_size=49152, initializer_range=0.02)
    recipe = Recipe(lr=1e-2, epochs=1, batch_size=8, warmup_steps=1, cutoff=128)
    adapter = lora.train_adapter(model, *encoded(tokenizer, recipe, training[:64], validation), recipe=recipe)
    losses = [row["validation_loss"] for row in adapter.meta["history"] if "validation_loss" in row]
    assert losses[0] == pytest.approx(math.log(49152), abs=0.3)
    assert losses[-1] < losses[1] < losses[0]


# --- Merging and files -------------------------------------------------------------------------------------------


def test_the_merged_model_is_base_plus_adapter(adapter):
    model, batch = pruned_model(), tokens(3, 20)
    merged = lora.merge_adapter(model, adapter)
    assert type(merged) is type(model) and not merged.training
    assert merged.state_dict().keys() == model.state_dict().keys()
    unmerged = lora.with_lora(copy.deepcopy(model), QUICK).eval()
    set_peft_model_state_dict(unmerged, adapter.weights)
    assert torch.allclose(logits(merged, batch), logits(unmerged, batch), rtol=0, atol=1e-4)
    assert not torch.allclose(logits(merged, batch), logits(model, batch), rtol=0, atol=1e-2)


def test_the_merged_weight_is_that_of_lora(adapter):
    model = pruned_model()
    merged = lora.merge_adapter(model, adapter)
    name = "model.layers.1.mlp.up_proj"
    a, b = (adapter.weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = model.get_parameter(f"{name}.weight") + QUICK.alpha / QUICK.r * b @ a
    assert torch.allclose(merged.get_parameter(f"{name}.weight"), expected, rtol=0, atol=1e-6)


def test_an_adapter_comes_back_from_its_file(adapter, tmp_path):
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = lora.Adapter.load(tmp_path / "adapter.safetensors")
    assert loaded.meta == adapter.meta
    assert loaded.weights.keys() == adapter.weights.keys()
    assert all(torch.equal(value, adapter.weights[name]) for name, value in loaded.weights.items())


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_foreign_adapter_file_is_refused(tmp_path, content):
    path = tmp_path / "adapter.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match="adapter.safetensors is not a file of adapter written by mpstudy"):
        lora.Adapter.load(path)


@pytest.mark.parametrize("other", [tiny_model(), tiny_model(num_hidden_layers=3), pruned_model(seed=2)])
def test_an_adapter_of_another_shape_is_refused(adapter, other):
    with pytest.raises(StudyError, match="trained on another pruned model"):
        lora.merge_adapter(other, adapter)


def test_an_adapter_that_changes_nothing_is_refused(adapter):
    empty = {name: value * (0 if "lora_B" in name else 1) for name, value in adapter.weights.items()}
    with pytest.raises(StudyError, match="the adapter changes nothing"):
        lora.merge_adapter(pruned_model(), lora.Adapter(empty, adapter.meta))


NUMBERS = [name for name, value in vars(Recipe()).items() if type(value) in (int, float)]


# --- Recipe ------------------------------------------------------------------------------------------------------


def test_the_defaults_are_llm_pruners():
    assert vars(Recipe()) == {
        "r": 8, "alpha": 16, "dropout": 0.05, "lr": 1e-4, "epochs": 2, "batch_size": 64, "warmup_steps": 100,
        "cutoff": 256, "micro_batch_size": 4, "schedule": "linear", "optimiser": "adamw", "weight_decay": 0.0,
        "max_grad_norm": 1.0, "loss_on": "response", "packing": True, "checkpointing": False,
    }  # fmt: skip


@pytest.mark.parametrize("good", [{"dropout": 0}, {"dropout": 0.0}, {"warmup_steps": 0}, {"lr": 1}, {"r": 1}])
def test_values_at_the_edge_pass(good):
    assert vars(Recipe(**good)).items() >= good.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in NUMBERS for value in (math.nan, math.inf, -1, "1", None, True, [1])]
    + [(name, 0) for name in NUMBERS if name not in ("dropout", "warmup_steps", "weight_decay")]
    + [("dropout", 1), ("dropout", 1.5), ("epochs", 1.5), ("r", 8.0)],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(StudyError, match=f"recovery setting {name} must be a (finite |whole )?number ") as caught:
        Recipe(**{name: value})
    assert repr(value) in str(caught.value)


def test_values_are_checked_under_postponed_annotations():
    module = ModuleType("mpstudy.recovery.postponed")
    module.__package__ = "mpstudy.recovery"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)  # where a dataclass looks its annotations up
        source = Path(inspect.getfile(Recipe)).read_text(encoding="utf-8")
        exec("from __future__ import annotations\n" + source, vars(module))
        assert isinstance(module.Recipe.__annotations__["lr"], str) and module.RULES == RULES
        with pytest.raises(StudyError, match="recovery setting lr must be a finite number > 0, not nan"):
            module.Recipe(lr=math.nan)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("optimiser", "sgd", "adamp, adamw"), ("schedule", "constant", "cosine, linear"),
        ("loss_on", 1, "all, response"), ("packing", 1, "true or false"), ("checkpointing", "yes", "true or false"),
    ],
)  # fmt: skip
def test_bad_choices_are_named(name, value, allowed):
    with pytest.raises(StudyError, match=f"recovery setting {name}.*{allowed}"):
        Recipe(**{name: value})
