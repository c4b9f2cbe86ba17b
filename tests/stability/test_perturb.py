"""Perturbations: what they do to the weights, and that nothing of it stays."""

import pytest
import torch
from helpers.models import bits, same_bits, score, tiny_llama

from mpstudy.errors import StudyError
from mpstudy.stability.kinds import Change
from mpstudy.stability.perturb import PERTURBATIONS, noisy, perturbed, quantised, rounded, weight_change, zeroed
from mpstudy.structure.plan import make_plan
from mpstudy.structure.units import prunable_units
from mpstudy.structure.weights import draw_noise, restored, shifted

DOSES = {kind: ["1e-4", "1e-1"] if facts.value else [""] for kind, facts in PERTURBATIONS.items()}
NAMES = [str(Change(kind, dose)) for kind, doses in DOSES.items() for dose in doses]
FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("name", NAMES)
def test_weights_change_inside_and_are_the_same_bits_afterwards(name):
    model = tiny_llama(bias=True)
    before = bits(model)
    with perturbed(name, model, seed=1):
        assert not same_bits(model, before)
    assert same_bits(model, before)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_after_an_exception(name):
    model = tiny_llama()
    before = bits(model)
    with pytest.raises(KeyboardInterrupt), perturbed(name, model):
        raise KeyboardInterrupt
    assert same_bits(model, before)


def test_perturbations_nest():
    model = tiny_llama()
    before = bits(model)
    with perturbed("noise-1e-2", model, seed=3):
        noisy = bits(model)
        with rounded(model, "bfloat16"):
            expected = {name: value.to(torch.bfloat16).float() for name, value in noisy.items()}
            assert same_bits(model, expected)
        assert same_bits(model, noisy)
    assert same_bits(model, before)


def test_whatever_happens_inside_is_undone():
    weight = torch.tensor([1.0, -0.0, float("inf"), 1e-42])
    before = weight.clone()
    with restored({"w": weight}) as saved:
        weight.zero_()
        assert torch.equal(saved["w"], before)
    assert torch.equal(weight.view(torch.int32), before.view(torch.int32))


@pytest.mark.parametrize("fmt", FORMATS)
def test_rounding_is_that_of_the_format(fmt):
    model = tiny_llama()
    expected = {name: value.to(FORMATS[fmt]).to(torch.float32) for name, value in bits(model).items()}
    with rounded(model, fmt):
        assert same_bits(model, expected)


@pytest.mark.parametrize("fmt", FORMATS)
def test_rounding_twice_is_rounding_once(fmt):
    model = tiny_llama()
    with rounded(model, fmt):
        once = bits(model)
        with rounded(model, fmt):
            assert same_bits(model, once)


@pytest.mark.parametrize("fmt", ["float8", "int8", "int4"])
def test_quantisation_rounds_the_linear_layers_alone(fmt):
    model = tiny_llama(bias=True)
    before = bits(model)
    with rounded(model, fmt):
        changed = {name for name, value in bits(model).items() if not torch.equal(value, before[name])}
        once = bits(model)
        with rounded(model, fmt):
            for name, value in bits(model).items():  # the levels are kept but for the rounding of the scale
                torch.testing.assert_close(value, once[name], rtol=1e-5, atol=0)
    assert changed == {name for name, value in before.items() if value.dim() == 2 and ".layers." in name}


def test_quantisation_by_hand():
    weight = torch.tensor([[7.0, -3.4, 0.2, 1.6], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[7.0, -3.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])  # 4 bits: the levels -7 to 7
    torch.testing.assert_close(quantised(weight, 4, group=4), expected)
    two = torch.tensor([[7.0, -3.0, 1.6 / 7, 1.6], [0.0, 0.0, 0.0, 0.0]])  # each pair has its own scale
    torch.testing.assert_close(quantised(weight, 4, group=2), two)


@pytest.mark.parametrize(("bits_", "group"), [(8, 64), (4, 64), (4, 48), (8, 5)])
def test_quantisation_is_off_by_half_a_level_at_most(bits_, group):
    weight = torch.randn(30, 100, generator=torch.Generator().manual_seed(0))
    error = (quantised(weight, bits_, group) - weight).abs()
    for part, off in zip(weight.split(group, dim=1), error.split(group, dim=1), strict=True):
        level = part.abs().amax(dim=1, keepdim=True) / (2 ** (bits_ - 1) - 1)
        assert (off <= 0.5001 * level).all() and (off > 0.4 * level).any()


def test_float8_has_four_significant_bits():
    model = tiny_llama()
    before = bits(model)
    with rounded(model, "float8"):
        for name, weight in model.named_parameters():
            error, large = (weight - before[name]).abs(), before[name].abs() > before[name].abs().max() / 1000
            assert (error <= before[name].abs() / 16 * 1.001)[large].all()


def test_zeroed_units_have_weights_of_zero_inside():
    model = tiny_llama()
    units = prunable_units(model, "0-1")
    plan = make_plan(score("l2", model, units), units, 0.25)
    before = bits(model)
    with zeroed(model, plan):
        scores = score("l2", model, units)
        for key, removed in plan.removed.items():
            assert (scores.values[key] == 0).nonzero().flatten().tolist() == removed.tolist()
    assert same_bits(model, before)


def test_unknown_format_and_perturbation_are_named():
    model = tiny_llama()
    with pytest.raises(StudyError, match="unknown number format 'int3'; known: bfloat16"), rounded(model, "int3"):
        pass
    with pytest.raises(StudyError, match="unknown perturbation 'sample'; known: bfloat16, "):
        perturbed("sample", model)


@pytest.mark.parametrize("sigma", [0.001, 0.05])
def test_noise_has_the_stated_spread_relative_to_each_weight(sigma):
    model = tiny_llama()
    with torch.no_grad():  # weights of very different size
        for i, parameter in enumerate(model.parameters()):
            parameter.mul_(10.0 ** (i % 3 - 1))
    before = bits(model)
    with noisy(model, sigma, "relative", seed=0):
        noise = torch.cat([((p - before[n]) / before[n].abs()).flatten() for n, p in model.named_parameters()])
    noise = noise.double()
    assert noise.std().item() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean().item()) < 4 * sigma / len(noise) ** 0.5
    assert noise.abs().max() < 6 * sigma


@pytest.mark.parametrize("kind", ["relative", "isotropic"])
def test_both_kinds_of_noise_move_the_weights_equally_far(kind):
    name = "noise-1e-2" if kind == "relative" else "isotropic-1e-2"
    assert weight_change(tiny_llama(), name) == pytest.approx(0.01, rel=0.03)


def test_isotropic_noise_does_not_depend_on_the_weights():
    noise = draw_noise({"w": torch.linspace(-5, 5, 20_000)}, 0.3, "isotropic", seed=(0, 0))["w"]
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(noise, draw_noise({"w": torch.zeros(20_000)}, 0.3, "isotropic", seed=(0, 0))["w"])


def test_noise_is_settled_by_seed_and_step():
    weights = {"a": torch.ones(50), "b": torch.ones(50)}
    draw = lambda seed, step: draw_noise(weights, 1.0, "relative", seed=(seed, step))["a"]  # noqa: E731
    assert torch.equal(draw(0, 0), draw(0, 0))
    assert len({tuple(draw(seed, step).tolist()) for seed in range(3) for step in range(3)}) == 9
    first = draw_noise(weights, 1.0, "relative", seed=(0, 0))
    assert not torch.equal(first["a"], first["b"])


def test_global_random_state_is_untouched():
    state = torch.get_rng_state()
    with perturbed("noise-5e-2", tiny_llama(), seed=9):
        pass
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_sigma_out_of_range_leaves_the_weights_alone(sigma):
    model = tiny_llama()
    before = bits(model)
    with pytest.raises(StudyError, match="sigma must be finite and >= 0"), noisy(model, sigma, "relative", seed=0):
        pass
    assert same_bits(model, before)


def test_shift_in_half_precision():
    weights = {"w": torch.ones(4, dtype=torch.bfloat16)}
    with shifted(weights, {"w": torch.full((4,), 0.5)}):
        assert weights["w"].tolist() == [1.5] * 4
    assert weights["w"].tolist() == [1.0] * 4


def test_weight_change_is_the_relative_size_of_the_perturbation():
    model = tiny_llama()
    before = bits(model)
    assert weight_change(model, "noise-1e-2") == pytest.approx(0.01, rel=0.03)
    assert weight_change(model, "noise-5e-2") == pytest.approx(5 * weight_change(model, "noise-1e-2"), rel=1e-3)
    # bfloat16 has 8 significant bits: the error of a weight is at most 2^-9 of it
    assert 2**-11 < weight_change(model, "bfloat16") < 2**-9
    assert same_bits(model, before)


def test_dither_takes_weights_off_a_4_bit_grid_by_at_most_half_a_step():
    model = tiny_llama()
    weight = model.model.layers[0].mlp.down_proj.weight
    with torch.no_grad():
        for part in weight.split(32, dim=-1):  # 16 levels of 0.01, both ends taken
            part.copy_(0.01 * torch.arange(part.numel()).remainder(16).view_as(part))
        before = weight.clone()
    with torch.no_grad(), perturbed("dither", model, seed=0):
        first = weight - before
    with torch.no_grad(), perturbed("dither", model, seed=1):
        second = weight - before
    for moved in (first, second):
        assert moved.abs().max() <= 0.005 + 1e-7
        assert moved.std() == pytest.approx(0.01 / 12**0.5, rel=0.1) and abs(float(moved.mean())) < 5e-4
    assert not torch.equal(first, second)
    assert torch.equal(weight, before)
