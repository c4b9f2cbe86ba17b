"""What a unit is: its slices, the heads it feeds, and the layer ranges it is asked for in."""

import pytest
import torch
from helpers.models import tiny_llama, tiny_tokens
from transformers import GPT2Config, GPT2LMHeadModel

from mpstudy.errors import StudyError
from mpstudy.structure.units import Slice, parse_layers, prunable_units, reduce_to_units

HEAD = 8  # head size of the tiny models


def set_named(model, key):
    return next(unit_set for unit_set in prunable_units(model, "0-1") if unit_set.key == key)


def head_outputs(model, tokens, layer=0):
    """What the heads of a layer hand to the output projection, (samples, length, heads, head size)."""
    seen = []
    projection = model.model.layers[layer].self_attn.o_proj
    hook = projection.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(tokens)
    hook.remove()
    return seen[0].unflatten(-1, (-1, HEAD))


def test_units_come_in_layer_order_attention_first():
    units = prunable_units(tiny_llama(layers=4, mlp=24), "1-2")
    assert units.counts == {"layers.1.attention": 4, "layers.1.mlp": 24, "layers.2.attention": 4, "layers.2.mlp": 24}
    assert [unit_set.width for unit_set in units] == [HEAD, 1, HEAD, 1]


def test_slices_without_grouping():
    attention, mlp = prunable_units(tiny_llama(), "1")
    root = "model.layers.1"
    assert attention.slices == (
        Slice(f"{root}.self_attn.q_proj.weight", 0, HEAD),
        Slice(f"{root}.self_attn.k_proj.weight", 0, HEAD),
        Slice(f"{root}.self_attn.v_proj.weight", 0, HEAD),
        Slice(f"{root}.self_attn.o_proj.weight", 1, HEAD),
    )
    assert mlp.slices == (
        Slice(f"{root}.mlp.gate_proj.weight", 0, 1),
        Slice(f"{root}.mlp.up_proj.weight", 0, 1),
        Slice(f"{root}.mlp.down_proj.weight", 1, 1),
    )


def test_group_of_query_heads_goes_with_its_kv_head():
    attention = set_named(tiny_llama(heads=6, kv_heads=2), "layers.0.attention")
    assert attention.count == 2 and attention.width == 3 * HEAD
    assert [part.rows_per_unit for part in attention.slices] == [3 * HEAD, HEAD, HEAD, 3 * HEAD]


def test_biases_of_the_rows_belong_to_the_units_and_output_biases_do_not():
    units = prunable_units(tiny_llama(bias=True), "0")
    biases = [name for name in units.names if name.endswith("bias")]
    assert [name.split(".")[-2] for name in biases] == ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (6, 2)])
@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj"])
def test_unit_g_feeds_the_query_heads_that_read_kv_head_g(heads, kv_heads, projection):
    tokens = tiny_tokens()
    for unit in range(kv_heads):
        model = tiny_llama(heads=heads, kv_heads=kv_heads)
        before = head_outputs(model, tokens)
        parts = set_named(model, "layers.0.attention").slices
        part = next(part for part in parts if projection in part.name)
        with torch.no_grad():
            model.get_parameter(part.name)[unit * part.rows_per_unit : (unit + 1) * part.rows_per_unit] = 0
        after = head_outputs(model, tokens)
        changed = [h for h in range(heads) if not torch.equal(before[:, :, h], after[:, :, h])]
        assert changed == [h for h in range(heads) if h // (heads // kv_heads) == unit]
        if projection == "v_proj":
            assert not after[:, :, changed].any()


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_output_columns_of_unit_g_read_the_same_query_heads(kv_heads):
    model = tiny_llama(kv_heads=kv_heads)
    output = set_named(model, "layers.0.attention").slices[-1]
    for unit in range(kv_heads):
        columns = range(unit * output.rows_per_unit, (unit + 1) * output.rows_per_unit)
        assert {column // HEAD // (4 // kv_heads) for column in columns} == {unit}


def test_unit_scores_sum_over_all_coupled_slices():
    model = tiny_llama(kv_heads=2, bias=True)
    attention, mlp = prunable_units(model, "1")
    values = {name: parameter.detach().abs() for name, parameter in model.named_parameters()}
    q, k, v, o = (values[f"model.layers.1.self_attn.{n}_proj.weight"] for n in "qkvo")
    bias_q, bias_k, bias_v = (values[f"model.layers.1.self_attn.{n}_proj.bias"] for n in "qkv")
    second = q[16:32].sum() + k[8:16].sum() + v[8:16].sum() + o[:, 16:32].sum()
    second = second + bias_q[16:32].sum() + bias_k[8:16].sum() + bias_v[8:16].sum()
    found = reduce_to_units(attention, values)
    assert found.shape == (2,)
    torch.testing.assert_close(found[1], second)
    gate, up, down = (values[f"model.layers.1.mlp.{n}_proj.weight"] for n in ("gate", "up", "down"))
    fifth = gate[5].sum() + up[5].sum() + down[:, 5].sum()
    fifth = fifth + values["model.layers.1.mlp.gate_proj.bias"][5] + values["model.layers.1.mlp.up_proj.bias"][5]
    torch.testing.assert_close(reduce_to_units(mlp, values)[5], fifth)


@pytest.mark.parametrize("kind, other", [("attention", "mlp"), ("mlp", "attention")])
def test_subset_of_the_kinds(kind, other):
    model = tiny_llama()
    units = prunable_units(model, f"{kind} 0-1")
    assert list(units.counts) == [f"layers.0.{kind}", f"layers.1.{kind}"]
    assert not any(other in name.replace("self_attn", "attention") for name in units.names)
    assert units.parameters(model).keys() == set(units.names)


def test_unknown_kind_is_named_with_the_known_ones():
    with pytest.raises(StudyError, match="unknown unit kind 'heads'; known: attention, mlp"):
        prunable_units(tiny_llama(), "heads 0")


def test_unknown_family_is_named_with_the_known_ones():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8))
    with pytest.raises(StudyError, match="no adapter for model family 'gpt2'; known: gemma"):
        prunable_units(model, "0")


@pytest.mark.parametrize("text, expected", [("4-25", range(4, 26)), ("7", range(7, 8)), ("0-0", range(0, 1)), (3, [3])])
def test_layer_range(text, expected):
    assert list(parse_layers(text, 30)) == list(expected)


@pytest.mark.parametrize("text", ["", "a-b", "4-", "-4", "-", "4..25", "1-2-3", "4 - 25", "1.5", "²", None])
def test_layer_range_of_another_form(text):
    with pytest.raises(StudyError, match="not of the form '4-25' or '7'"):
        parse_layers(text, 30)


@pytest.mark.parametrize("text", ["4-30", "30", "25-4"])
def test_layer_range_outside_the_model(text):
    with pytest.raises(StudyError, match=f"layers '{text}' are not inside this model's layers 0-29"):
        parse_layers(text, 30)


def test_units_are_found_by_the_key_of_scores_and_masks():
    units = prunable_units(tiny_llama(layers=4), "1-2")
    for key, count in units.counts.items():
        assert units[key].key == key and units[key].count == count
    assert (units["layers.2.mlp"].layer, units["layers.2.mlp"].kind) == (2, "mlp")
    with pytest.raises(StudyError, match="unknown unit set 'layers.3.mlp'; known: layers.1.attention"):
        units["layers.3.mlp"]
