"""Number-format arithmetic: a model that computes in bfloat16 or float16, and does not only store its weights so.

On a GPU the weights are cast and the arithmetic is native. Native half precision on a CPU is some thirty times slower
than fp32, so there it is emulated: the weights, the floating-point inputs and outputs of every module, and the
gradients that flow back through them, are rounded to the format. Inside a module the work stays in fp32, as matrix
units for half precision accumulate.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..errors import check_choice

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def arithmetic(model: nn.Module, fmt: str, *, loss_scale: float = 1.0, native: bool | None = None) -> Iterator[None]:
    """Let ``model`` compute in ``fmt`` (``bfloat16`` or ``float16``); its weights are the same bits afterwards.

    ``loss_scale``: the loss is multiplied by it before the backward pass and the gradients divided afterwards, as in
    mixed-precision training (Micikevicius et al. 2018, arXiv 1710.03740): below 6e-8 float16 has only zero.
    ``native``: by default where the model is not on a CPU.
    """
    check_choice("number format of the arithmetic", fmt, HALVES)
    dtype = HALVES[fmt]
    hooks: list[RemovableHandle] = []
    native = next(model.parameters()).device.type != "cpu" if native is None else native
    originals = {parameter: parameter.data for parameter in model.parameters()}
    try:
        for parameter, value in originals.items():
            parameter.data = value.to(dtype) if native else value.to(dtype).to(value.dtype)
        if not native:
            hooks += [hook for module in model.modules() for hook in _rounding(module, dtype)]
        # torch knows tensors and modules as attributes
        model.arithmetic = fmt if loss_scale == 1 else f"{fmt}, loss scale {loss_scale:g}"  # type: ignore[assignment]
        model.loss_scale = loss_scale  # type: ignore[assignment]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, value in originals.items():
            parameter.data = value
        del model.arithmetic, model.loss_scale


def _rounding(module: nn.Module, dtype: torch.dtype) -> Iterator[RemovableHandle]:
    yield module.register_forward_pre_hook(lambda _, inputs: _each(inputs, dtype))
    yield module.register_forward_hook(lambda _, inputs, output: _each(output, dtype))


def _each(value: Any, dtype: torch.dtype) -> Any:
    """``value`` with its floating-point tensors rounded; what is neither a tensor nor a tuple passes."""
    if isinstance(value, tuple):
        return tuple(_each(part, dtype) for part in value)
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return _Rounded.apply(value, dtype)
    return value


class _Rounded(torch.autograd.Function):
    """The nearest values of a format, in the forward and in the backward pass."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.dtype = dtype
        return value.to(dtype).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient.to(ctx.dtype).to(gradient.dtype), None
