"""Perturbations: what they do to the weights, and that nothing of it stays."""

import pytest
import torch
from models import bits, same_bits, tiny_llama

from mpstudy.errors import StudyError
from mpstudy.perturb import (
    PERTURBATIONS,
    draw_noise,
    perturbed,
    relative_noise,
    restored,
    rounded,
    shifted,
    weight_change,
)

FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_weights_change_inside_and_are_the_same_bits_afterwards(name):
    model = tiny_llama(bias=True)
    before = bits(model)
    with perturbed(name, model, seed=1):
        assert not same_bits(model, before)
    assert same_bits(model, before)


@pytest.mark.parametrize("name", PERTURBATIONS)
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


def test_unknown_format_and_perturbation_are_named():
    model = tiny_llama()
    with pytest.raises(StudyError, match="unknown number format 'int8'; known: bfloat16"), rounded(model, "int8"):
        pass
    with pytest.raises(StudyError, match="unknown perturbation 'noise'; known: bfloat16, float16, noise-1e-2"):
        perturbed("noise", model)


@pytest.mark.parametrize("sigma", [0.001, 0.05])
def test_noise_has_the_stated_spread_relative_to_each_weight(sigma):
    model = tiny_llama()
    with torch.no_grad():  # weights of very different size
        for i, parameter in enumerate(model.parameters()):
            parameter.mul_(10.0 ** (i % 3 - 1))
    before = bits(model)
    with relative_noise(model, sigma, seed=0):
        noise = torch.cat([((p - before[n]) / before[n].abs()).flatten() for n, p in model.named_parameters()])
    noise = noise.double()
    assert noise.std().item() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean().item()) < 4 * sigma / len(noise) ** 0.5
    assert noise.abs().max() < 6 * sigma


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
    with pytest.raises(StudyError, match="sigma must be finite and >= 0"), relative_noise(model, sigma, seed=0):
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
