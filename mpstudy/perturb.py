"""Perturbations of the weights: one context manager each, restored bit for bit, whatever happens inside.

A perturbation takes the model (and a seed where it is random) and changes its floating-point weights in place for the
length of the ``with`` block. They nest.
"""

import hashlib
from contextlib import contextmanager

import torch
from torch import nn

from .errors import StudyError, check_choice

FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def restored(weights: dict[str, torch.Tensor]):
    """Give copies of ``weights`` to the block, and put the very same bits back afterwards.

    Raises :class:`StudyError` for a weight that Accelerate loads for each use: there is nothing to write to.
    """
    if away := [name for name, weight in weights.items() if weight.is_meta]:
        raise StudyError(f"{away[0]} is offloaded and cannot be changed in place; load the model without offloading")
    saved = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        yield saved
    finally:
        with torch.no_grad():
            for name, value in saved.items():
                weights[name].copy_(value)


@contextmanager
def shifted(weights: dict[str, torch.Tensor], shift: dict[str, torch.Tensor]):
    """Add ``shift`` to the given tensors for the length of the block."""
    with restored(weights):
        with torch.no_grad():
            for name, value in shift.items():
                weights[name].add_(value.to(weights[name].dtype))
        yield


@contextmanager
def rounded(model: nn.Module, fmt: str):
    """Round every weight to ``fmt`` (``bfloat16`` or ``float16``) and back, to nearest even; arithmetic stays as
    it is.
    """
    check_choice("number format", fmt, FORMATS)
    weights = dict(model.named_parameters())
    with restored(weights):
        with torch.no_grad():
            for weight in weights.values():
                weight.copy_(weight.to(FORMATS[fmt]))
        yield


@contextmanager
def relative_noise(model: nn.Module, sigma: float, seed: int):
    """Add independent Gaussian noise of standard deviation ``sigma * |w|`` to every weight."""
    weights = dict(model.named_parameters())
    with shifted(weights, draw_noise(weights, sigma, "relative", seed=(seed, 0))):
        yield


PERTURBATIONS = {
    "bfloat16": lambda model, seed: rounded(model, "bfloat16"),
    "float16": lambda model, seed: rounded(model, "float16"),
    "noise-1e-3": lambda model, seed: relative_noise(model, 1e-3, seed),
    "noise-1e-2": lambda model, seed: relative_noise(model, 1e-2, seed),
    "noise-5e-2": lambda model, seed: relative_noise(model, 5e-2, seed),
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


def draw_noise(weights: dict, sigma: float, noise: str, *, seed: tuple[int, int]) -> dict:
    """Gaussian noise of the shape of ``weights``, see :func:`draw_one`. ``seed`` is (seed, step)."""
    if not (sigma >= 0 and sigma < float("inf")):
        raise StudyError(f"sigma must be finite and >= 0, not {sigma!r}")
    return {
        name: draw_one(weight, sigma, noise, seed=(*seed, index))
        for index, (name, weight) in enumerate(weights.items())
    }


@torch.no_grad()
def draw_one(weight: torch.Tensor, sigma: float, noise: str, *, seed: tuple[int, int, int], out=None) -> torch.Tensor:
    """Gaussian noise for one tensor: standard deviation ``sigma * |w|`` (``relative``) or ``sigma`` (``isotropic``).

    ``seed`` is (seed, step, index of the tensor); no global random state is touched, and the draw does not depend on
    the device. ``out``: a float32 tensor on the CPU to draw into.
    """
    mixed = hashlib.sha256(repr(seed).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "little") >> 1)
    out = torch.empty(weight.shape, dtype=torch.float32) if out is None else out
    normal = out.normal_(0, sigma, generator=generator).to(weight.device)
    return normal.mul_(weight) if noise == "relative" else normal
