"""Calibration text on its way through the layers: the same hidden states as in a whole forward pass."""

import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import tokens

from mpstudy.structure.families import FAMILIES, layers, linear_layers
from mpstudy.structure.walk import Walk

BATCHES = list(tokens(4, 20).split(2))


def hidden(model, layer):
    """What goes into a layer, batch by batch."""
    with torch.no_grad():
        return [model.base_model(input_ids=batch, output_hidden_states=True).hidden_states[layer] for batch in BATCHES]


@pytest.fixture(params=sorted(FAMILIES))
def model(request):
    changes = {"sliding_window": 3} if request.param.startswith("gemma") and request.param != "gemma" else {}
    return tiny_family(request.param, num_hidden_layers=3, **_types(request.param), **changes)


def _types(kind):
    """Windows in the middle layer, where a family has them."""
    if kind in ("gemma2", "gemma3_text"):
        return {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
    return {}


def test_layers_put_out_what_the_next_ones_take(model):
    walk = Walk(model, range(0, 2), BATCHES)
    for layer in (0, 1):
        expected = hidden(model, layer + 1)
        for found, wanted in zip(walk.outputs(layer), expected, strict=True):
            torch.testing.assert_close(found, wanted)
        walk.advance(layer)


def test_the_walk_begins_before_its_first_layer(model):
    expected = hidden(model, 2)
    assert all(torch.equal(*pair) for pair in zip(Walk(model, range(1, 2), BATCHES).outputs(1), expected, strict=True))


def test_the_inputs_of_a_linear_layer_are_those_of_a_forward_pass(model):
    name = [name for name in linear_layers(model) if name.endswith(("down_proj", "fc2", "4h_to_h"))]
    (linear,) = (module for path, module in layers(model)[1].named_modules() if path.endswith(tuple(name)))
    walked, passed = [], []
    Walk(model, range(1, 2), BATCHES).inputs(1, linear, walked.append)
    hook = linear.register_forward_pre_hook(lambda module, arguments: passed.append(arguments[0].flatten(0, -2)))
    hidden(model, 0)
    hook.remove()
    assert torch.equal(torch.cat(walked), torch.cat(passed))


def test_what_changes_in_a_layer_reaches_the_next():
    model = tiny_family("llama", num_hidden_layers=3)
    walk = Walk(model, range(0, 2), BATCHES)
    with torch.no_grad():
        layers(model)[0].mlp.down_proj.weight.mul_(2)
    walk.advance(0)
    for found, wanted in zip(walk.outputs(1), hidden(model, 2), strict=True):
        torch.testing.assert_close(found, wanted)


def test_no_hook_stays(model):
    walk = Walk(model, range(0, 3), BATCHES)
    walk.inputs(0, next(module for module in layers(model)[0].modules() if isinstance(module, torch.nn.Linear)), len)
    assert not any(module._forward_pre_hooks for module in model.modules())
