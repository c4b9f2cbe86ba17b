"""Weights that are changed for a while and put back bit for bit, and the noise that is added to them."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ..errors import StudyError

Tensors = Mapping[str, torch.Tensor]  # by parameter name


@contextmanager
def restored(weights: Tensors) -> Iterator[dict[str, torch.Tensor]]:
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
def shifted(weights: Tensors, shift: Tensors) -> Iterator[None]:
    """Add ``shift`` to the given tensors for the length of the block."""
    with restored(weights):
        with torch.no_grad():
            for name, value in shift.items():
                weights[name].add_(value.to(weights[name].dtype))
        yield


def draw_noise(weights: Tensors, sigma: float, noise: str, *, seed: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Gaussian noise of the shape of ``weights``, see :func:`draw_one`. ``seed`` is (seed, step)."""
    if not (sigma >= 0 and sigma < float("inf")):
        raise StudyError(f"sigma must be finite and >= 0, not {sigma!r}")
    return {
        name: draw_one(weight, sigma, noise, seed=(*seed, index))
        for index, (name, weight) in enumerate(weights.items())
    }


@torch.no_grad()
def draw_one(
    weight: torch.Tensor, sigma: float, noise: str, *, seed: tuple[int, int, int], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Gaussian noise for one tensor: standard deviation ``sigma * |w|`` (``relative``) or ``sigma`` (``isotropic``).

    ``seed`` is (seed, step, index of the tensor); no global random state is touched, and the draw does not depend on
    the device. ``out``: a float32 tensor on the CPU to draw into.
    """
    mixed = hashlib.sha256(repr(seed).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "little") >> 1)
    out = torch.empty(weight.shape, dtype=torch.float32) if out is None else out
    normal = out.normal_(0, sigma, generator=generator).to(weight.device)
    return normal.mul_(weight) if noise == "relative" else normal


def seeded(*seed: int | str) -> torch.Generator:
    """A generator on the CPU for the draws that ``seed`` names, such as (seed, step, what); no global state is used."""
    mixed = hashlib.sha256(repr(seed).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(mixed[:8], "little") >> 1)
