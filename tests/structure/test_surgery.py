"""Removal is real, computes what zeroing computes, and survives generation with a cache."""

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, same_bits, tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.structure.plan import Plan
from mpstudy.structure.surgery import remove_units, resize, ungroup, unit_counts, zero_units
from mpstudy.structure.units import prunable_units

SHAPES = {
    "mha": {},
    "gqa": {"heads": 6, "kv_heads": 2},
    "bias": {"bias": True},
    "gqa-bias": {"kv_heads": 2, "bias": True},
}


def plan_for(model, **removed):
    """A plan from ``layer_kind=[indices]`` pairs such as ``l0_mlp=[1, 2]``."""
    sets = {f"layers.{name[1]}.{name[3:]}": torch.tensor(indices) for name, indices in removed.items()}
    return Plan(sets, unit_counts(model))


def usual_plan(model):
    """One head group and some channels of both layers, not the same in each."""
    return plan_for(model, l0_attention=[0], l1_attention=[1], l0_mlp=[0, 5, 23], l1_mlp=[2, 3, 4, 5, 6, 7])


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


@pytest.mark.parametrize("shape", SHAPES)
def test_pruned_model_computes_what_zeroed_units_compute(shape):
    tokens = tiny_tokens()
    dense, zeroed, pruned = (tiny_llama(**SHAPES[shape]) for _ in range(3))
    plan = usual_plan(dense)
    zero_units(zeroed, plan)
    remove_units(pruned, plan)
    torch.testing.assert_close(logits(pruned, tokens), logits(zeroed, tokens), rtol=0, atol=1e-5)
    assert (logits(pruned, tokens) - logits(dense, tokens)).abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_kept_rows_and_columns_are_untouched(shape):
    dense, pruned = tiny_llama(**SHAPES[shape]), tiny_llama(**SHAPES[shape])
    plan = plan_for(dense, l0_attention=[0], l0_mlp=[0, 5])
    remove_units(pruned, plan)
    kept = [channel for channel in range(24) if channel not in (0, 5)]
    before, after = dense.model.layers[0], pruned.model.layers[0]
    assert torch.equal(after.mlp.up_proj.weight, before.mlp.up_proj.weight[kept])
    assert torch.equal(after.mlp.down_proj.weight, before.mlp.down_proj.weight[:, kept])
    assert torch.equal(after.self_attn.v_proj.weight, before.self_attn.v_proj.weight[8:])
    group = before.self_attn.q_proj.weight.shape[0] // prunable_units(dense, "0").counts["layers.0.attention"]
    assert torch.equal(after.self_attn.q_proj.weight, before.self_attn.q_proj.weight[group:])
    assert torch.equal(after.self_attn.o_proj.weight, before.self_attn.o_proj.weight[:, group:])
    assert same_bits(pruned.model.layers[1], bits(dense.model.layers[1]))


def test_tensors_are_smaller_and_parameters_counted_by_hand():
    model = tiny_llama(heads=6, kv_heads=2, mlp=24)
    before = model.num_parameters()
    remove_units(model, plan_for(model, l0_attention=[1], l1_mlp=[0, 1, 2, 3]))
    head_group = 24 * 48 + 8 * 48 + 8 * 48 + 48 * 24  # q, k, v rows and o columns of 3 query heads on one KV head
    assert before - model.num_parameters() == head_group + 4 * 3 * 48
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[1].mlp
    assert attention.q_proj.weight.shape == (24, 48) and attention.o_proj.weight.shape == (48, 24)
    assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (8, 48)
    assert mlp.gate_proj.weight.shape == mlp.up_proj.weight.shape == (20, 48) and mlp.down_proj.weight.shape == (48, 20)
    assert (mlp.down_proj.in_features, mlp.down_proj.out_features) == (20, 48)
    assert all(p.is_contiguous() and p.untyped_storage().nbytes() == 4 * p.numel() for p in model.parameters())


def test_biases_shrink_with_their_rows():
    model = tiny_llama(bias=True)
    remove_units(model, plan_for(model, l0_attention=[0, 2], l0_mlp=[7]))
    block = model.model.layers[0]
    assert block.self_attn.q_proj.bias.shape == block.self_attn.v_proj.bias.shape == (16,)
    assert block.self_attn.o_proj.bias.shape == block.mlp.down_proj.bias.shape == (48,)
    assert block.mlp.gate_proj.bias.shape == (23,)


@pytest.mark.parametrize("shape", SHAPES)
def test_generation_with_a_cache_equals_generation_without(shape):
    model = tiny_llama(**SHAPES[shape])
    remove_units(model, usual_plan(model))
    prompt = tiny_tokens(samples=1, length=5, seed=3)
    settings = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
    cached = model.generate(prompt, use_cache=True, **settings)
    assert cached.shape == (1, 25)
    assert torch.equal(cached, model.generate(prompt, use_cache=False, **settings))


def test_pruned_model_can_be_trained():
    model = tiny_llama()
    remove_units(model, usual_plan(model))
    tokens = tiny_tokens()
    model(tokens, labels=tokens).loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


def test_removing_in_two_goes_equals_removing_at_once():
    tokens = tiny_tokens()
    once, twice = tiny_llama(), tiny_llama()
    remove_units(once, plan_for(once, l0_attention=[1, 3], l1_mlp=[2, 4, 9]))
    remove_units(twice, plan_for(twice, l0_attention=[1], l1_mlp=[4]))
    assert unit_counts(twice)["layers.0.attention"] == 3 and unit_counts(twice)["layers.1.mlp"] == 23
    remove_units(twice, plan_for(twice, l0_attention=[2], l1_mlp=[2, 8]))  # 3 and 9 have moved down by one
    assert same_bits(twice, bits(once))
    assert torch.equal(logits(once, tokens), logits(twice, tokens))


def test_plan_that_does_not_fit_changes_nothing():
    model = tiny_llama()
    before = bits(model)
    fitting = {"layers.0.mlp": torch.tensor([0])}
    wrong = {
        "layers.1.attention has 2 units in the plan, 4 here": ("layers.1.attention", 2),
        "layers.9.mlp has 24 units in the plan, no such set here": ("layers.9.mlp", 24),
    }
    for message, (key, count) in wrong.items():
        plan = Plan(fitting | {key: torch.tensor([1])}, unit_counts(model) | {key: count})
        for change in (remove_units, zero_units):
            with pytest.raises(StudyError, match=message):
                change(model, plan)
            assert same_bits(model, before)


def test_plan_made_before_a_removal_does_not_fit_after_it():
    model = tiny_llama()
    plan = plan_for(model, l0_mlp=[3])
    remove_units(model, plan)
    with pytest.raises(StudyError, match="layers.0.mlp has 24 units in the plan, 23 here"):
        remove_units(model, plan)


def test_empty_plan_changes_nothing():
    model = tiny_llama()
    before = bits(model)
    remove_units(model, plan_for(model, l0_mlp=[]))
    assert same_bits(model, before)


def test_resize_gives_the_shapes_of_a_pruned_model():
    pruned, fresh = tiny_llama(kv_heads=2, bias=True), tiny_llama(kv_heads=2, bias=True, seed=1)
    remove_units(pruned, usual_plan(pruned))
    resize(fresh, unit_counts(pruned))
    assert unit_counts(fresh) == unit_counts(pruned)
    fresh.load_state_dict(pruned.state_dict(), strict=True)
    assert torch.equal(logits(fresh, tiny_tokens()), logits(pruned, tiny_tokens()))


@pytest.mark.parametrize("shape", ["gqa", "gqa-bias"])
def test_ungrouped_model_is_the_same_function_with_single_heads(shape):
    model, tokens = tiny_llama(**SHAPES[shape]), tiny_tokens()
    before = bits(model)
    single = ungroup(model)
    torch.testing.assert_close(logits(single, tokens), logits(model, tokens), rtol=0, atol=1e-5)
    assert unit_counts(single)["layers.0.attention"] == model.config.num_attention_heads
    assert same_bits(model, before) and model.config.num_key_value_heads == 2


def test_families_without_projections_of_their_own_are_not_ungrouped():
    gemma = tiny_family("gemma3_text", num_key_value_heads=1)
    batch = torch.randint(257, (2, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(ungroup(gemma), batch), logits(gemma, batch), rtol=0, atol=1e-5)
    with pytest.raises(StudyError, match="^KV heads of phi3 cannot be copied: it has no k_proj and v_proj$"):
        ungroup(tiny_family("phi3"))


@pytest.mark.slow
def test_ungrouped_bundled_model_has_the_same_logits_to_the_bit():
    from mpstudy.inputs.models import load_model

    tokens = torch.randint(49_152, (2, 32), generator=torch.Generator().manual_seed(0))
    grouped = load_model("smollm2-135m-instruct", device="cpu")
    single = load_model("smollm2-135m-instruct-ungrouped", device="cpu")
    assert unit_counts(grouped)["layers.0.attention"] == 3 and unit_counts(single)["layers.0.attention"] == 9
    assert torch.equal(logits(grouped, tokens), logits(single, tokens))
