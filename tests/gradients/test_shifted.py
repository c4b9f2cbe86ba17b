"""The loss at shifted weights equals that of a model whose weights were really shifted, and changes nothing."""

import pytest
import torch
from helpers.models import bits, equal, same_bits, score, tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.gradients.loss import mean_gradients, only_trainable
from mpstudy.gradients.shifted import Noise, ShiftedLoss
from mpstudy.pruners import PRUNERS
from mpstudy.structure.units import prunable_units
from mpstudy.structure.weights import draw_one, shifted


@pytest.fixture
def model():
    return tiny_llama(kv_heads=2, bias=True)


@pytest.fixture
def units(model):
    return prunable_units(model, "0-1")


def offset(loss, size=0.05):
    generator = torch.Generator().manual_seed(3)
    return {name: size * torch.randn(value.shape, generator=generator) for name, value in loss.zeros().items()}


def gradient_at(model, units, batches, d, **settings):
    """Loss and gradients by moving the weights and calling autograd on them."""
    weights = units.parameters(model)
    with only_trainable(model, units.names), shifted(weights, d):
        return mean_gradients(model, batches, weights)


def same(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value.float(), rtol=tolerance, atol=tolerance * value.abs().max().item()
        )


def test_the_plain_loss_and_gradient(model, units):
    batches, found = [tiny_tokens()], {}
    loss = ShiftedLoss(model, batches, units)(None, found.update)
    expected, gradients = gradient_at(model, units, batches, {})
    assert loss == expected
    same(found, gradients)


@pytest.mark.parametrize("layers", ["0-1", "1", "0"])
def test_the_loss_and_gradient_at_an_offset(model, layers):
    units, batches, found = prunable_units(model, layers), [tiny_tokens()], {}
    loss = ShiftedLoss(model, batches, units)
    d = offset(loss)
    expected, gradients = gradient_at(model, units, batches, d)
    assert loss(d, found.update) == pytest.approx(expected, rel=1e-6)
    same(found, gradients)


def test_batches_and_draws_are_averaged(model, units):
    batches, found = [tiny_tokens(seed=1), tiny_tokens(seed=2)], {}
    draws = [Noise(0.1, "relative", (7, 0), sign) for sign in (1, -1)]
    loss = ShiftedLoss(model, batches, units, draws)
    d, total, mean = offset(loss), 0.0, {}
    for sign in (1, -1):
        weights = units.parameters(model)
        u = {n: draw_one(w, 0.1, "relative", seed=(7, 0, i)) for i, (n, w) in enumerate(weights.items())}
        value, gradients = gradient_at(model, units, batches, {n: d[n] + sign * u[n] for n in d})
        total += value / 2
        mean = {name: mean.get(name, 0) + gradient / 2 for name, gradient in gradients.items()}
    assert loss(d, found.update) == pytest.approx(total, rel=1e-5)
    same(found, mean, 1e-4)


def test_each_block_comes_once_and_may_be_moved_at_once(model, units):
    loss, sets = ShiftedLoss(model, [tiny_tokens()], units), []
    d, untouched = offset(loss), {}
    loss(d, untouched.update)

    def move(block):
        sets.append(tuple(block))
        for name, gradient in block.items():
            assert torch.equal(gradient, untouched[name])
            d[name].fill_(float("nan"))

    loss(d, move)
    assert sorted(map(sorted, sets)) == sorted(sorted(part.name for part in s.slices) for s in units)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_offsets_far_below_its_rounding(model, units, dtype):
    batches = [tiny_tokens(samples=8)]
    direction = offset(ShiftedLoss(model, batches, units), 1.0)
    plain, gradients = gradient_at(model, units, batches, {})
    slope = sum(float((direction[name] * gradient).sum()) for name, gradient in gradients.items())
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    d = {name: 1e-3 * value for name, value in direction.items()}  # half a unit in the last place is 4e-4 |w|
    loss, found = ShiftedLoss(model, batches, units), {}
    assert all(value.dtype == torch.float32 for value in loss.zeros().values())
    start = loss(None, found.update)
    assert start == pytest.approx(plain, rel=0.02)
    assert loss(d, found.update) - start == pytest.approx(1e-3 * slope, rel=0.5)
    assert all(value.dtype == torch.float32 for value in found.values())


def test_nothing_is_changed_also_when_it_is_interrupted(model, units):
    before, flags = bits(model), [parameter.requires_grad for parameter in model.parameters()]
    loss = ShiftedLoss(model, [tiny_tokens()], units, [Noise(0.1, "isotropic", (0, 0))])

    def interrupt(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loss(offset(loss), interrupt)
    assert same_bits(model, before) and all(parameter.grad is None for parameter in model.parameters())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():
        assert torch.isfinite(model(tiny_tokens()).logits).all()


def test_a_loss_that_is_not_finite_is_an_error_with_its_step(model, units):
    loss = ShiftedLoss(model, [tiny_tokens(), tiny_tokens()], units)
    loss(None, lambda block: None)
    with pytest.raises(StudyError, match="the loss is nan at step 1, batch 0"):
        loss({name: torch.full_like(value, float("nan")) for name, value in loss.zeros().items()}, lambda block: None)


def test_a_weight_that_no_linear_layer_uses_is_named(model, units):
    gate = model.model.layers[1].mlp.gate_proj
    gate.forward = lambda x: x @ gate.weight.T + gate.bias
    with pytest.raises(StudyError, match="layers.1.mlp.gate_proj.weight has no gradient"):
        ShiftedLoss(model, [tiny_tokens()], units)(None, lambda block: None)


def test_state_lives_where_it_is_asked_to(model, units):
    batches, here, there = [tiny_tokens()], {}, {}
    loss = ShiftedLoss(model, batches, units, state_device="cpu")
    assert {value.device.type for value in loss.zeros().values()} == {"cpu"}
    d = offset(loss)
    assert loss(d, there.update) == ShiftedLoss(model, batches, units)(d, here.update)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_a_model_spread_by_accelerate_scores_as_before(model, units):
    from accelerate import dispatch_model

    batches, here, there = [tiny_tokens()], {}, {}
    d = offset(ShiftedLoss(model, batches, units))
    plain = ShiftedLoss(model, batches, units)(d, here.update)
    spread = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    spread |= {"model.layers.0": "cpu", "model.layers.1": "cpu"}
    dispatched = dispatch_model(model, spread, force_hooks=True)
    assert hasattr(dispatched.model.layers[0].mlp.gate_proj, "_hf_hook")
    assert ShiftedLoss(dispatched, batches, prunable_units(dispatched, "0-1"))(d, there.update) == plain
    same(there, here, 0.0)


@pytest.fixture(params=["memory", "disk"])
def offloaded(request, model, tmp_path):
    from accelerate import cpu_offload, disk_offload

    if request.param == "memory":
        return cpu_offload(model, torch.device("cpu"))
    disk_offload(model, tmp_path, torch.device("cpu"))
    return model


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "moreau-release"])
def test_weights_that_are_loaded_for_each_use_score_as_before(pruner, offloaded, units):
    assert len(units.offloaded(offloaded)) == len(units.names)
    assert equal(score(pruner, offloaded, units), score(pruner, tiny_llama(kv_heads=2, bias=True), units))


def test_weights_that_are_loaded_for_each_use_cannot_be_changed(offloaded, units):
    with pytest.raises(StudyError, match="embed_tokens.weight is offloaded and cannot be changed in place"):
        score("moreau-release", offloaded, units)


def test_weights_without_values_are_named(units):
    with pytest.raises(StudyError, match="layers.0.self_attn.q_proj.weight has no values"):
        score("l1", tiny_llama(kv_heads=2, bias=True).to("meta"), units)
