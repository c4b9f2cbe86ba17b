"""Every family is scored, pruned, saved, loaded, generates and is recovered, and zeroing units equals removing them."""

import copy

import pytest
import torch
from helpers.families import UNGROUPED, tiny_family
from helpers.models import FEW
from helpers.tiny import ROWS, byte_tokenizer, encoded, tokens
from transformers import AutoConfig

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.recovery import lora
from mpstudy.recovery.recipe import Recipe
from mpstudy.structure import checkpoint, families, surgery
from mpstudy.structure.plan import Plan
from mpstudy.structure.units import prunable_units

KINDS = sorted(families.FAMILIES)
RECIPE = Recipe(r=2, epochs=2, batch_size=4, micro_batch_size=2, warmup_steps=1, lr=1e-2, cutoff=300, dropout=0.0)


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch).logits


def uneven_plan(model):
    """Different numbers of units from the two layers; the second keeps all its heads."""
    counts = prunable_units(model, "0-1").counts
    removed = {"layers.0.attention": [0], "layers.0.mlp": range(0, 24, 2), "layers.1.mlp": [3, 4, 23]}
    return Plan({key: torch.tensor(list(removed.get(key, [])), dtype=torch.int64) for key in counts}, counts)


@pytest.fixture(params=KINDS)
def model(request):
    return tiny_family(request.param)


@pytest.fixture
def pruned(model):
    return surgery.remove_units(copy.deepcopy(model), uneven_plan(model))


def test_units_are_counted_by_hand(model):
    heads = 4 if model.config.model_type in UNGROUPED else 2
    assert prunable_units(model, "0-1").counts == {
        "layers.0.attention": heads, "layers.0.mlp": 24, "layers.1.attention": heads, "layers.1.mlp": 24,
    }  # fmt: skip


def test_zeroing_equals_removing(model, pruned):
    plan, batch = uneven_plan(model), tokens()
    zeroed = surgery.zero_units(copy.deepcopy(model), plan)
    assert pruned.num_parameters() < model.num_parameters()
    torch.testing.assert_close(logits(pruned, batch), logits(zeroed, batch), rtol=0, atol=1e-5)
    assert not torch.allclose(logits(pruned, batch), logits(model, batch), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", sorted(pruners.PRUNERS))
def test_every_pruner_scores_every_family(model, name):
    found = prunable_units(model, "0-1")
    before = copy.deepcopy(model.state_dict())
    scores = pruners.score(name, model, [tokens()], found, **FEW.get(name, {}))
    for key, count in found.counts.items():
        value = scores.values[key]
        assert value.shape == (count,) and torch.isfinite(value).all() and value.any()
        assert (value >= 0).all() or name == "flap"  # standardised
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_taylor_is_the_product_summed_over_the_parameters(model):
    """Every element of a prunable parameter is in exactly one unit."""
    found, batch = prunable_units(model, "0-1"), tokens()
    scores = pruners.score("taylor", model, [batch], found)
    model.requires_grad_(True)
    model(input_ids=batch, labels=batch).loss.backward()
    for unit_set in found:
        expected = sum((p * p.grad).abs().sum() for p in map(model.get_parameter, unit_set.names))
        assert scores.values[unit_set.key].sum().item() == pytest.approx(expected.item(), rel=1e-3)


def test_a_checkpoint_loads_with_equal_logits(pruned, tmp_path):
    checkpoint.save_pruned(pruned, tmp_path / "pruned")
    again = checkpoint.load_pruned(tmp_path / "pruned")
    assert torch.equal(logits(again, tokens()), logits(pruned, tokens()))


def test_generation_with_a_cache_is_that_without(pruned):
    batch = tokens(1, 6)
    with_cache, without = (
        pruned.generate(batch, max_new_tokens=5, do_sample=False, use_cache=cached, eos_token_id=None)
        for cached in (True, False)
    )
    assert with_cache.shape == (1, 11) and torch.equal(with_cache, without)


@pytest.mark.parametrize("packing", [True, False])
def test_recovery_lowers_the_loss_of_an_uneven_model(pruned, packing):
    recipe = Recipe(**vars(RECIPE) | {"packing": packing})
    adapter = lora.train_adapter(pruned, *encoded(byte_tokenizer(), recipe, ROWS[:8], ROWS[8:]), recipe=recipe)
    losses = [row["validation_loss"] for row in adapter.meta["history"] if "validation_loss" in row]
    assert min(losses[1:]) < losses[0]
    merged = lora.merge_adapter(pruned, adapter)
    assert not torch.allclose(logits(merged, tokens()), logits(pruned, tokens()), rtol=0, atol=1e-4)


def test_packed_and_padded_training_agree(pruned):
    if not families.family(pruned.config).packs:
        pytest.skip("its examples would attend to each other in a packed row")
    histories = [
        lora.train_adapter(
            pruned,
            *encoded(byte_tokenizer(), RECIPE, ROWS[:8], ROWS[8:]),
            recipe=Recipe(**vars(RECIPE) | {"packing": packing}),
        ).meta["history"]
        for packing in (True, False)
    ]
    for packed, padded in zip(*histories, strict=True):
        assert packed == pytest.approx(padded, rel=1e-4)


def test_an_unknown_family_names_the_known_ones_and_the_place():
    with pytest.raises(
        StudyError, match="no adapter for model family 'gpt2'; known: gemma, .*mpstudy/structure/families.py"
    ):
        families.family(type("Config", (), {"model_type": "gpt2"}))


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_a_mixture_of_experts_is_named_as_without_adapter(kind):
    with pytest.raises(StudyError, match=f"no adapter for model family '{kind}'; known: "):
        families.family(AutoConfig.for_model(kind))
