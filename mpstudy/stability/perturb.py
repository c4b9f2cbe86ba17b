"""Perturbations of the weights: one context manager each, restored bit for bit, whatever happens inside.

A perturbation takes the model (and a seed where it is random) and changes its floating-point weights in place for the
length of the ``with`` block. They nest. :mod:`mpstudy.stability.arithmetic` has those of the arithmetic.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from ..errors import check_choice
from ..structure.surgery import zero_units
from ..structure.weights import draw_noise, restored, shifted
from .arithmetic import HALVES, arithmetic

GROUP = 64  # weights that share a scale; a divisor of the widths of most models
FLOAT8_MAX = 448.0  # of e4m3


@contextmanager
def zeroed(model: nn.Module, plan):
    """Set the units of ``plan`` to zero, as if they had been pruned before; see :class:`.Plan`."""
    with restored(dict(model.named_parameters())):
        zero_units(model, plan)
        yield


@contextmanager
def rounded(model: nn.Module, fmt: str):
    """Round the weights to ``fmt`` and back, to the nearest; arithmetic stays as it is.

    ``bfloat16`` and ``float16`` round every weight. ``float8`` (e4m3 with one scale a tensor), ``int8`` and ``int4``
    (symmetric, one scale for every 64 weights of a row) round the weights of the linear layers but the output head, as
    weight-only quantisation does.
    """
    check_choice("number format", fmt, FORMATS)
    rounding, linear_only = FORMATS[fmt]
    weights = _linear_weights(model) if linear_only else dict(model.named_parameters())
    with restored(weights):
        with torch.no_grad():
            for weight in weights.values():
                weight.copy_(rounding(weight))
        yield


def cast(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The nearest values of ``dtype``."""
    return weight.to(dtype)


def float8(weight: torch.Tensor) -> torch.Tensor:
    """The nearest values of float8 e4m3 times one scale, which takes the largest weight to the largest number."""
    scale = weight.float().abs().amax().clamp_min(torch.finfo(torch.float32).tiny) / FLOAT8_MAX
    return (weight / scale).to(torch.float8_e4m3fn).float() * scale


def quantised(weight: torch.Tensor, bits: int, group: int = GROUP) -> torch.Tensor:
    """The nearest of 2^bits - 1 levels, symmetric about 0, with one scale for every ``group`` weights of a row; the
    last group of a row may be shorter.
    """
    levels, parts = 2 ** (bits - 1) - 1, []
    for part in weight.float().split(group, dim=-1):
        scale = part.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / levels
        parts.append((part / scale).round() * scale)
    return torch.cat(parts, dim=-1)


FORMATS: dict[str, tuple[Callable, bool]] = {  # name -> how a weight is rounded, and whether of linear layers alone
    "bfloat16": (partial(cast, dtype=torch.bfloat16), False),
    "float16": (partial(cast, dtype=torch.float16), False),
    "float8": (float8, True),
    "int8": (partial(quantised, bits=8), True),
    "int4": (partial(quantised, bits=4), True),
}


def _linear_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    head = model.get_output_embeddings()
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head}
    return {f"{name}.weight": part.weight for name, part in linear.items()}


@contextmanager
def noisy(model: nn.Module, sigma: float, kind: str, seed: int):
    """Add independent Gaussian noise to every weight: of standard deviation ``sigma * |w|`` (``relative``) or ``sigma``
    times the root mean square of all weights (``isotropic``), so that both move the weights equally far.
    """
    weights = dict(model.named_parameters())
    scale = 1.0 if kind == "relative" else _root_mean_square(weights)
    with shifted(weights, draw_noise(weights, sigma * scale, kind, seed=(seed, 0))):
        yield


def _root_mean_square(weights: dict) -> float:
    squares = sum(float(weight.detach().double().square().sum()) for weight in weights.values())
    return (squares / sum(weight.numel() for weight in weights.values())) ** 0.5


SIGMAS = ("1e-4", "1e-3", "1e-2", "5e-2", "1e-1")
PERTURBATIONS = {fmt: (lambda model, seed, fmt=fmt: rounded(model, fmt)) for fmt in FORMATS}
PERTURBATIONS |= {f"{fmt}-arithmetic": (lambda model, seed, fmt=fmt: arithmetic(model, fmt)) for fmt in HALVES}
PERTURBATIONS |= {f"noise-{s}": (lambda model, seed, s=s: noisy(model, float(s), "relative", seed)) for s in SIGMAS}
PERTURBATIONS |= {
    f"isotropic-{s}": (lambda model, seed, s=s: noisy(model, float(s), "isotropic", seed)) for s in SIGMAS
}


def perturbed(name: str, model: nn.Module, seed: int = 0):
    """The registered perturbation ``name`` as a context manager on ``model``."""
    check_choice("perturbation", name, PERTURBATIONS)
    return PERTURBATIONS[name](model, seed)


@torch.no_grad()
def weight_change(model: nn.Module, name: str, seed: int = 0) -> float:
    """``||dw|| / ||w||`` over all weights under the registered perturbation ``name``."""
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    with perturbed(name, model, seed):
        moved = sum((weight - before[key]).double().square().sum() for key, weight in model.named_parameters())
    return float((moved / sum(value.double().square().sum() for value in before.values())).sqrt())
