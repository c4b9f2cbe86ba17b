"""LLM-Pruner's importances by gradients (arXiv 2305.11627, section 3.2): eq. 5 element-wise, and per row.

``reduction`` makes one number of the coupled layers of a channel: ``sum``, ``mean``, ``max``, ``prod``, ``first``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ..gradients.loss import mean_gradients, only_trainable
from ..gradients.shifted import ShiftedLoss
from ..registry import BLUE, INDIGO, ROSE, YELLOW, Look
from ..structure.scores import Scores, first_order_scores, unit_scores
from ..structure.units import HIDDEN, Units
from .registry import PRUNERS


@PRUNERS.register("taylor", look=Look("taylor", BLUE, "o"))
def taylor(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, reduction: str = "sum"
) -> Scores:
    """First order, ``element1``: sum of ``|w * dL/dw|`` over a unit's coupled slices; ``seed`` is not used."""
    loss, gradients = gradients_of(model, batches, units)
    meta = {"pruner": "taylor", "loss": loss, "gradients": len(batches)}
    return first_order_scores(units, units.parameters(model), gradients, meta, reduction)


@PRUNERS.register("taylor2", look=Look("taylor2", INDIGO, "<"), near_taylor=True)
def taylor2(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, reduction: str = "sum"
) -> Scores:
    """Second order with a diagonal Fisher estimate, ``element2``: sum of ``|w * a * w|``, where a is the mean over the
    samples of the squared gradient of one sample's loss; ``seed`` is not used.
    """
    weights, (loss, fisher) = units.parameters(model), _squared_gradients(model, batches, units)
    meta = {"pruner": "taylor2", "loss": loss, "gradients": sum(map(len, batches))}
    return unit_scores(units, lambda name: (weights[name].square() * fisher[name]).abs(), meta, reduction)


@PRUNERS.register("taylor-mix", look=Look("taylor-mix", ROSE, ">"), near_taylor=True)
def taylor_mix(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, reduction: str = "sum"
) -> Scores:
    """Both orders: sum of ``|w * g - w * a * w / 2|``, with the g of :func:`taylor` and the a of :func:`taylor2`."""
    weights, (loss, fisher) = units.parameters(model), _squared_gradients(model, batches, units)
    _, gradients = gradients_of(model, batches, units)
    meta = {"pruner": "taylor-mix", "loss": loss, "gradients": len(batches) + sum(map(len, batches))}

    def importance(name: str) -> torch.Tensor:
        return (weights[name] * (gradients[name] - 0.5 * fisher[name] * weights[name])).abs()

    return unit_scores(units, importance, meta, reduction)


@PRUNERS.register("taylor-vector", look=Look("taylor-vector", YELLOW, "p"), near_taylor=True)
def taylor_vector(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, reduction: str = "sum"
) -> Scores:
    """First order per row, ``vector``: in each coupled layer ``|sum of w * dL/dw|`` over a channel's row or column."""
    loss, gradients = gradients_of(model, batches, units)
    weights = units.parameters(model)
    meta = {"pruner": "taylor-vector", "loss": loss, "gradients": len(batches)}
    return unit_scores(units, lambda name: weights[name] * gradients[name], meta, reduction, signed=True)


def gradients_of(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units
) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss (nats per token) over the batches and its gradient by parameter name."""
    if any(unit_set.kind == HIDDEN for unit_set in units):  # embeddings and norms are no linear layers
        with only_trainable(model, units.names):
            return mean_gradients(model, batches, units.parameters(model))
    gradients: dict[str, torch.Tensor] = {}
    return ShiftedLoss(model, batches, units)(None, gradients.update), gradients


def _squared_gradients(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units
) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss and, per parameter, the mean over all samples of the squared gradient of one."""
    samples = [sample for batch in batches for sample in batch.split(1)]
    loss = 0.0
    squares: dict[str, torch.Tensor] = {}

    for sample in samples:
        value, gradients = gradients_of(model, [sample], units)
        loss += value / len(samples)
        for name, gradient in gradients.items():
            square = gradient.square_().div_(len(samples))
            squares[name] = squares[name].add_(square) if name in squares else square
    return loss, squares
