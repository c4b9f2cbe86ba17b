"""The calibration loss and its gradient with respect to the prunable parameters."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from .errors import StudyError


def causal_loss(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats, computed and averaged in fp32. ``tokens``: int64 (batch, length)."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@contextmanager
def only_trainable(model: nn.Module, names):
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


def loss_and_gradients(model: nn.Module, batch: torch.Tensor, parameters: dict, where: str):
    """The loss (float, nats) and its gradients (name -> tensor) on one batch.

    Call it inside :func:`only_trainable`. Raises :class:`StudyError` naming ``where`` and the parameter when the loss
    or a gradient is not finite.
    """
    loss = causal_loss(model, batch.to(next(iter(parameters.values())).device))
    if not torch.isfinite(loss):
        raise StudyError(
            f"the loss is {loss.item()} at {where}; the weights, the tokens or the settings are not usable"
        )
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient.sum()):
            raise StudyError(f"the gradient of {name} is not finite at {where}")
    return loss.item(), gradients


def mean_gradients(model: nn.Module, batches, parameters: dict, step: int = 0):
    """Loss and gradients averaged over ``batches`` (a list of equally large int64 tensors).

    ``step`` numbers the call in the messages of :func:`loss_and_gradients`, for pruners that call it many times.
    """
    total, loss = None, 0.0
    for number, batch in enumerate(batches):
        value, gradients = loss_and_gradients(model, batch, parameters, f"step {step}, batch {number}")
        loss += value / len(batches)
        if total is None:
            total = gradients
        else:
            for name, gradient in gradients.items():
                total[name].add_(gradient)
    for gradient in total.values():
        gradient.div_(len(batches))
    return loss, total
