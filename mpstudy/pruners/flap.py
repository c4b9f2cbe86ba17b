"""FLAP: how much the inputs of o and down fluctuate (An et al., arXiv 2312.11983).

A column j of o or down has one of three metrics, with the variance and the mean square of its input x_j over all
calibration tokens:

* ``WIFV``: ``var(x_j) * sum_i w_ij^2``, the weighted fluctuation (eq. 5),
* ``IFV``: ``var(x_j)``,
* ``WIFN``: ``mean_i |w_ij| * sqrt(mean x_j^2)``.

As in the release, the inputs of every layer are those of the dense model, the metric of attention is squared, and
columns are standardised before they are averaged into heads. Its sums over tokens are divided by the number of samples,
a factor that the standardisation takes away. But its running variance leaves the first sample out and measures each
later one from the mean up to it; here it is that of all tokens, whatever their order.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..errors import check_choice
from ..registry import BRICK, Look
from ..structure.scores import Scores
from ..structure.units import Units
from .activations import Moments, check_units, column_weight, input_moments
from .registry import PRUNERS

METRICS: dict[str, Callable[[torch.Tensor, Moments], torch.Tensor]] = {  # (rows, columns) -> (columns,)
    "WIFV": lambda weight, inputs: inputs.variance * weight.square().sum(dim=0),
    "IFV": lambda weight, inputs: inputs.variance,
    "WIFN": lambda weight, inputs: weight.abs().mean(dim=0) * inputs.mean_square.sqrt(),
}


@PRUNERS.register("flap", look=Look("flap", BRICK, "H"))
def flap(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, metric: str = "WIFV"
) -> Scores:
    """The ``metric`` of each column, standardised over a layer's columns of o or of down (mean 0, standard deviation
    1); a head group scores the mean over its columns, a channel what its own does. ``seed`` is not used.

    So scores compare over layers and kinds, as :func:`..structure.joint.plan_joint` does, FLAP's allocation. They may
    be negative. Raises :class:`StudyError` for an unknown metric, hidden dimensions, and inputs that are not finite.
    """
    check_choice("metric of pruner 'flap'", metric, METRICS)
    check_units("flap", units)
    moments, values = input_moments(model, batches, units), {}
    for unit_set in units:
        columns = METRICS[metric](column_weight(model, unit_set), moments[unit_set.key])
        if unit_set.kind == "attention":
            columns = columns.square()
        values[unit_set.key] = _standardised(columns).view(unit_set.count, -1).mean(dim=1).float().cpu()
    return Scores(values, {"pruner": "flap", "metric": metric})


def _standardised(values: torch.Tensor) -> torch.Tensor:
    """``values`` less their mean, over their standard deviation (with n - 1); zeros where all are equal."""
    centred = values - values.mean()
    return centred / (centred.norm() / max(len(values) - 1, 1) ** 0.5).clamp_min(torch.finfo(values.dtype).tiny)
