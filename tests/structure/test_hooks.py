"""Masked units are as good as gone in the forward pass, and leave no trace after it."""

import copy

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, same_bits, tiny_llama, tiny_tokens
from helpers.tiny import tokens

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.structure import surgery
from mpstudy.structure.families import FAMILIES
from mpstudy.structure.hooks import check_maskable, masked, watched
from mpstudy.structure.plan import make_plan
from mpstudy.structure.units import prunable_units


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch).logits


def mask_of(plan) -> dict:
    keep = {key: torch.ones(count, dtype=torch.bool) for key, count in plan.counts.items()}
    for key, removed in plan.removed.items():
        keep[key][removed] = False
    return keep


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_masking_equals_removing(kind):
    model, batch = tiny_family(kind), tokens()
    units = prunable_units(model, "0-1")
    plan = make_plan(pruners.score("random", model, [], units, seed=3), units, 0.5)
    pruned, dense = surgery.remove_units(copy.deepcopy(model), plan), logits(model, batch)
    with masked(model, units, mask_of(plan)):
        torch.testing.assert_close(logits(model, batch), logits(pruned, batch), rtol=0, atol=1e-5)
        assert not torch.allclose(logits(model, batch), dense, rtol=0, atol=1e-2)
    assert torch.equal(logits(model, batch), dense)


def test_a_layer_may_lose_all_it_has():
    model = tiny_llama(bias=True)
    units, batch = prunable_units(model, "0"), tiny_tokens()
    with masked(model, units, {key: torch.zeros(count, dtype=torch.bool) for key, count in units.counts.items()}):
        without = logits(model, batch)
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    assert torch.equal(without, logits(model, batch))


def test_what_is_not_finite_but_masked_does_no_harm():
    model = tiny_llama()
    units, batch = prunable_units(model, "1"), tiny_tokens()
    keep = {"layers.1.mlp": torch.arange(24) != 5}
    with masked(model, units, keep):
        before = logits(model, batch)
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[5] = torch.nan
        assert torch.equal(logits(model, batch), before)


def test_nothing_is_left_after_an_error_nor_is_a_weight_changed():
    model = tiny_llama(kv_heads=2)
    units, before, dense = prunable_units(model, "0-1"), bits(model), logits(model, tiny_tokens())
    with pytest.raises(KeyboardInterrupt), masked(model, units, {"layers.0.attention": torch.tensor([True, False])}):
        raise KeyboardInterrupt
    assert same_bits(model, before) and torch.equal(logits(model, tiny_tokens()), dense)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_is_watched_is_what_the_layers_read():
    model, batch, seen = tiny_llama(), tiny_tokens(), {}
    names = [f"model.layers.0.{part}.weight" for part in ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj")]
    with watched(model, names, seen.__setitem__):
        logits(model, batch)
    assert list(seen) == names and not any(module._forward_pre_hooks for module in model.modules())
    layer = model.model.layers[0]
    expected = layer.input_layernorm(model.model.embed_tokens(batch)).flatten(0, 1)
    assert torch.equal(seen[names[0]], expected)
    gate, up = (module(seen[names[1]]) for module in (layer.mlp.gate_proj, layer.mlp.up_proj))
    torch.testing.assert_close(seen[names[2]], torch.nn.functional.silu(gate) * up)


def test_hidden_dimensions_are_refused():
    model = tiny_llama()
    check_maskable(prunable_units(model, "0-1"))
    with pytest.raises(StudyError, match="hidden dimensions cannot be masked: head groups and MLP channels can"):
        check_maskable(prunable_units(model, "hidden"))
