"""LoRA's dropout drops as often as torch's, and scales what stays."""

import pytest
import torch
from helpers.tiny import tiny_model

from mpstudy.recovery import lora
from mpstudy.recovery.dropout import LEVELS, Dropout
from mpstudy.recovery.recipe import Recipe


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_element_is_dropped_or_scaled(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(501, 401, dtype=dtype)
    y = Dropout(p)(x)
    factor = LEVELS / (LEVELS - round(p * LEVELS))
    assert y.dtype == dtype and set(y.unique().tolist()) == {0.0, torch.tensor(factor, dtype=dtype).item()}
    spread = (p * (1 - p) / x.numel()) ** 0.5
    assert abs((y == 0).double().mean().item() - p) < 5 * spread
    neighbours = (y == 0).double().flatten()
    together = (neighbours[1:] * neighbours[:-1]).mean().item()  # four neighbours come from one random number
    assert abs(together - p * p) < 5 * (p * p / x.numel()) ** 0.5


def test_gradients_take_the_same_mask():
    torch.manual_seed(0)
    x = torch.randn(7, 5, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)


def test_the_seed_decides_and_evaluation_changes_nothing():
    drop, x = Dropout(0.5), torch.randn(3, 100)
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(drop(x))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert drop.eval()(x) is x


def test_it_is_the_dropout_of_every_lora_layer():
    adapted = lora.with_lora(tiny_model(), Recipe(dropout=0.1))
    drops = [module for module in adapted.modules() if isinstance(module, Dropout)]
    assert len(drops) == 14 and not any(isinstance(module, torch.nn.Dropout) for module in adapted.modules())
    without = lora.with_lora(tiny_model(), Recipe(dropout=0.0))
    assert not any(isinstance(module, (Dropout, torch.nn.Dropout)) for module in without.modules())
