"""The calibration loss and its gradient with respect to the prunable parameters."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..errors import StudyError


def causal_loss(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats, computed and averaged in fp32. ``tokens``: int64 (batch, length)."""
    logits = model(input_ids=tokens, use_cache=False).logits.float()
    return _CrossEntropy.apply(logits, tokens[:, 1:])


def loss_scale(model: nn.Module) -> float:
    """The factor that keeps the gradients of half-precision arithmetic above its smallest numbers on their way back;
    see :func:`mpstudy.stability.arithmetic.arithmetic`. It is taken off again in at least fp32.
    """
    return getattr(model, "loss_scale", 1.0)


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of ``logits[:, :-1]`` for ``targets``. Its gradient takes the place of the logits, of which
    torch's own holds four copies, as much as several layers.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        normalisers = torch.stack([row.logsumexp(dim=-1) for row in logits])
        ctx.save_for_backward(logits, normalisers, targets)
        chosen = logits[:, :-1].gather(-1, targets[..., None]).squeeze(-1)
        return (normalisers[:, :-1] - chosen).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, normalisers, targets = ctx.saved_tensors
        logits.sub_(normalisers[..., None]).exp_()
        logits[:, :-1].scatter_add_(-1, targets[..., None], logits.new_full((*targets.shape, 1), -1.0))
        logits[:, -1] = 0
        return logits.mul_(gradient / targets.numel()), None


def unscaled(gradient: torch.Tensor, scale: float) -> torch.Tensor:
    """``gradient / scale`` in at least fp32."""
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / scale


@contextmanager
def only_trainable(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Ask for gradients of the named parameters alone, and restore the flags afterwards."""
    wanted = set(names)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def _loss_and_gradients(
    model: nn.Module, batch: torch.Tensor, parameters: dict[str, torch.Tensor], where: str
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss (float, nats) and its gradients (name -> tensor) on one batch.

    Call it inside :func:`only_trainable`. Raises :class:`StudyError` naming ``where`` and the parameter when the loss
    or a gradient is not finite.
    """
    loss = causal_loss(model, batch.to(next(iter(parameters.values())).device))
    if not torch.isfinite(loss):
        raise StudyError(
            f"the loss is {loss.item()} at {where}; the weights, the tokens or the settings are not usable"
        )
    scale = loss_scale(model)
    gradients = dict(zip(parameters, torch.autograd.grad(loss * scale, list(parameters.values()))))
    if scale != 1:
        gradients = {name: unscaled(gradient, scale) for name, gradient in gradients.items()}
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient.sum()):
            raise StudyError(f"the gradient of {name} is not finite at {where}")
    return loss.item(), gradients


def mean_gradients(
    model: nn.Module, batches: Sequence[torch.Tensor], parameters: dict[str, torch.Tensor], step: int = 0
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients averaged over ``batches`` (a list of equally large int64 tensors).

    ``step`` numbers the call in the messages of :func:`_loss_and_gradients`, for pruners that call it many times.
    """
    total: Any = None
    loss = 0.0
    for number, batch in enumerate(batches):
        value, gradients = _loss_and_gradients(model, batch, parameters, f"step {step}, batch {number}")
        loss += value / len(batches)
        if total is None:
            total = gradients
        else:
            for name, gradient in gradients.items():
                total[name].add_(gradient)
    for gradient in total.values():
        gradient.div_(len(batches))
    return loss, total
