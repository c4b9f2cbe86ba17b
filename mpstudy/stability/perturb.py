"""Perturbations of the weights: one context manager each, restored bit for bit, whatever happens inside.

A perturbation takes the model and a seed and changes its floating-point weights in place for the length of the ``with``
block. They nest. :mod:`mpstudy.stability.arithmetic` has those of the arithmetic. To add one, write the context manager
``(model, seed)`` and register it: ``@PERTURBATIONS.register("int8-rows")``.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from ..errors import check_choice
from ..structure.surgery import zero_units
from ..structure.weights import draw_noise, restored, shifted
from .arithmetic import arithmetic
from .kinds import PERTURBATIONS, SIGMA, Change, Kind

STEP_GROUP = 32  # weights that share a step in the GGUF formats of 4 bits
GROUP = 64  # weights that share a scale; a divisor of the widths of most models
FLOAT8_MAX = 448.0  # of e4m3
LOSS_SCALE = 2.0**14  # small gradients stay above float16's smallest number, large ones below its largest


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


@contextmanager
def dithered(model: nn.Module, seed: int):
    """Add uniform noise of one step of a 4-bit grid to every weight of the linear layers but the output head: a step is
    a fifteenth of the span of ``STEP_GROUP`` neighbours in a row. Weights that were stored in 4 bits (Q4_1) leave their
    grid, and every place between two of its points is equally likely.
    """
    weights = _linear_weights(model)
    with restored(weights):
        with torch.no_grad():
            for number, weight in enumerate(weights.values()):
                generator = torch.Generator().manual_seed(1000 * seed + number)
                for part in weight.split(STEP_GROUP, dim=-1):
                    step = (part.amax(dim=-1, keepdim=True) - part.amin(dim=-1, keepdim=True)) / 15
                    part.add_(step * (torch.rand(part.shape, generator=generator).to(part.device) - 0.5))
        yield


def _root_mean_square(weights: dict) -> float:
    squares = sum(float(weight.detach().double().square().sum()) for weight in weights.values())
    return (squares / sum(weight.numel() for weight in weights.values())) ** 0.5


PERTURBATIONS.add("bfloat16", Kind(lambda model, seed: rounded(model, "bfloat16"), label="bf16"))
PERTURBATIONS.add("float16", Kind(lambda model, seed: rounded(model, "float16"), label="fp16"))
PERTURBATIONS.add("float8", Kind(lambda model, seed: rounded(model, "float8"), label="fp8"))
PERTURBATIONS.add("int8", Kind(lambda model, seed: rounded(model, "int8")))
PERTURBATIONS.add("int4", Kind(lambda model, seed: rounded(model, "int4")))
PERTURBATIONS.add("dither", Kind(dithered))


@PERTURBATIONS.register("bfloat16-arithmetic", label="bf16\narithmetic")
def bfloat16_arithmetic(model: nn.Module, seed: int):
    """Let the model compute in bfloat16 (:func:`.arithmetic.arithmetic`)."""
    return arithmetic(model, "bfloat16")


@PERTURBATIONS.register("float16-arithmetic", label="fp16\narithmetic")
def float16_arithmetic(model: nn.Module, seed: int):
    """Let the model compute in float16 (:func:`.arithmetic.arithmetic`)."""
    return arithmetic(model, "float16")


@PERTURBATIONS.register("float16-scaled", label="fp16 arithmetic,\nloss scale")
def float16_scaled(model: nn.Module, seed: int):
    """Let the model compute in float16 with a loss scale of 2^14."""
    return arithmetic(model, "float16", loss_scale=LOSS_SCALE)


@PERTURBATIONS.register("noise", value=SIGMA, panel="relative noise, σ|w|")
def relative_noise(model: nn.Module, seed: int, sigma: float):
    """:func:`noisy` of kind ``relative``."""
    return noisy(model, sigma, "relative", seed)


@PERTURBATIONS.register("isotropic", value=SIGMA, panel="isotropic noise, σ")
def isotropic_noise(model: nn.Module, seed: int, sigma: float):
    """:func:`noisy` of kind ``isotropic``."""
    return noisy(model, sigma, "isotropic", seed)


def perturbed(name: str, model: nn.Module, seed: int = 0):
    """The perturbation ``name``, such as ``bfloat16`` or ``noise-1e-2``, as a context manager on ``model``."""
    change = Change.parse(name)
    function = PERTURBATIONS[change.kind].function
    return function(model, seed) if change.dose is None else function(model, seed, change.dose)


@torch.no_grad()
def weight_change(model: nn.Module, name: str, seed: int = 0) -> float:
    """``||dw|| / ||w||`` over all weights under the registered perturbation ``name``."""
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    with perturbed(name, model, seed):
        moved = sum((weight - before[key]).double().square().sum() for key, weight in model.named_parameters())
    return float((moved / sum(value.double().square().sum() for value in before.values())).sqrt())
