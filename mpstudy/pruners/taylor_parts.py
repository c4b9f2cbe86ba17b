"""Taylor by parts: LLM-Pruner's first order (arXiv 2305.11627, eq. 5) on a few rows at a time, averaged.

Taylor's score is the absolute value of weight times gradient, and the gradient of one joint loss is a mean over rows:
what has other signs in two rows cancels, the more of it the more text there is. The mean over parts keeps it.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ..parameters import Count, checked
from ..registry import Look
from ..structure.scores import Scores
from ..structure.units import Units
from .registry import PRUNERS
from .taylor import taylor

VIOLET = "#7040d0"


@PRUNERS.register("taylor-parts", look=Look("taylor-parts", VIOLET, "h"), near_taylor=True)
def taylor_parts(
    model: nn.Module,
    batches: Sequence[torch.Tensor],
    units: Units,
    *,
    seed: int = 0,
    rows: int = 8,
    reduction: str = "sum",
) -> Scores:
    """The mean over parts of ``rows`` calibration samples, the last of which may be smaller, of the scores of
    :func:`.taylor.taylor`, each part by its number of samples; ``seed`` is not used. With ``rows`` the size of a single
    batch these are Taylor's scores.
    """
    checked(Count, "rows of pruner 'taylor-parts'", rows)
    parts = torch.cat(tuple(batches)).split(rows)
    found, samples = [taylor(model, [part], units, reduction=reduction) for part in parts], sum(map(len, parts))
    weights = torch.tensor([len(part) / samples for part in parts])
    values = {key: weights @ torch.stack([each.values[key] for each in found]) for key in units.counts}
    loss = sum(len(part) / samples * each.meta["loss"] for part, each in zip(parts, found))
    return Scores(values, {"pruner": "taylor-parts", "rows": rows, "loss": loss, "gradients": len(parts)})
