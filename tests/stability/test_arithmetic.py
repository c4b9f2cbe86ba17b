"""Arithmetic in half precision: the emulation is as far from fp32 as the native one, and nothing of it stays."""

import pytest
import torch
from helpers.models import bits, equal, same_bits, score, tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.stability.arithmetic import HALVES, arithmetic
from mpstudy.stability.perturb import rounded
from mpstudy.structure.units import prunable_units


@torch.no_grad()
def logits(model, seed):
    return model(tiny_tokens(seed=seed)).logits.float()


def change(model, seed, block):
    """How far the logits move inside ``block``, relative to their size."""
    before = logits(model, seed)
    with block:
        return float((logits(model, seed) - before).norm() / before.norm())


@pytest.mark.parametrize("fmt", HALVES)
def test_the_emulation_agrees_with_native_arithmetic(fmt):
    for seed in range(3):
        model = tiny_llama(layers=3, mlp=64, seed=seed)
        native, emulated = (change(model, seed, arithmetic(model, fmt, native=where)) for where in (True, False))
        weights_alone = change(model, seed, rounded(model, fmt))
        assert 0.75 < emulated / native < 1.33, (emulated, native)
        assert weights_alone < 0.75 * native


@pytest.mark.parametrize("fmt", HALVES)
def test_the_gradients_of_the_emulation_agree_too(fmt):
    found = {True: 0.0, False: 0.0}
    for seed in range(4):
        model = tiny_llama(layers=3, mlp=64, seed=seed)
        units = prunable_units(model, "0-2")
        before = torch.cat(list(score("taylor", model, units).values.values()))
        for native in found:
            with arithmetic(model, fmt, native=native):
                after = torch.cat(list(score("taylor", model, units).values.values()))
            found[native] += float((after - before).norm() / before.norm())
    assert 0.6 < found[False] / found[True] < 1.6


@pytest.mark.parametrize("native", [True, False])
def test_nothing_of_it_stays(native):
    model = tiny_llama(bias=True)
    before, units = bits(model), prunable_units(model, "0-1")
    plain, addresses = score("taylor", model, units), [p.data_ptr() for p in model.parameters()]
    with pytest.raises(KeyboardInterrupt), arithmetic(model, "bfloat16", native=native):
        assert model.arithmetic == "bfloat16" and not same_bits(model, before)
        raise KeyboardInterrupt
    assert not hasattr(model, "arithmetic") and same_bits(model, before)
    assert addresses == [p.data_ptr() for p in model.parameters()]
    assert equal(score("taylor", model, units), plain)


def test_what_flows_between_modules_has_the_format():
    model, seen = tiny_llama(), []
    with arithmetic(model, "bfloat16"):
        for module in model.modules():
            module.register_forward_hook(lambda module, inputs, output: seen.extend([*inputs, output]))
        logits(model, 0)
    tensors = [value for value in seen if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert len(tensors) > 20 and all(torch.equal(value, value.bfloat16().float()) for value in tensors)


def test_an_unknown_format_is_named():
    message = "unknown number format of the arithmetic 'int8'; known: bfloat16, float16"
    with pytest.raises(StudyError, match=message), arithmetic(tiny_llama(), "int8"):
        pass


def test_a_loss_scale_brings_back_what_float16_would_lose():
    """Without one, gradients below 6e-8 vanish on their way back; with one the scores come closer to fp32's."""
    model = tiny_llama(layers=3, mlp=64)
    units = prunable_units(model, "0-2")
    with torch.no_grad():
        for parameter in model.lm_head.parameters():
            parameter.mul_(1e-4)  # makes the gradients of all layers before small

    def scores():
        return torch.cat(list(score("taylor", model, units).values.values()))

    exact, gaps = scores(), []
    for scale in (1.0, 2.0**14):
        with arithmetic(model, "float16", loss_scale=scale):
            assert model.arithmetic == ("float16" if scale == 1 else "float16, loss scale 16384")
            gaps.append(float((scores() - exact).norm() / exact.norm()))
    assert gaps[1] < 0.1 * gaps[0]
    assert torch.equal(scores(), exact)


@pytest.mark.parametrize("pruner", ["taylor", "moreau-release"])
def test_a_loss_scale_alone_changes_nothing(pruner):
    """A power of two scales floating-point numbers exactly: in bfloat16, with fp32's range, the scores are equal."""
    model = tiny_llama(layers=3, mlp=64)
    units, found = prunable_units(model, "0-2"), []
    for scale in (1.0, 2.0**10):
        with arithmetic(model, "bfloat16", loss_scale=scale):
            found.append(torch.cat(list(score(pruner, model, units).values.values())))
    assert torch.equal(*found)
