"""Plans by one threshold over the head groups and channels of all layers: FLAP's allocation (arXiv 2312.11983)."""

from collections.abc import Mapping

import torch

from ..errors import StudyError
from .plan import Plan, check_fit, check_ratio
from .scores import Scores
from .units import HIDDEN, Units


def plan_joint(scores: Scores, units: Units, sizes: Mapping[str, int], ratio: float) -> Plan:
    """Remove the units below one threshold, which is set so that they hold ``ratio`` of the parameters of all units.

    ``sizes``: :func:`..shares.unit_sizes`, so a head group costs its parameters. That is only sensible of scores that
    compare over layers and kinds, such as those of ``flap``. The ratio is met to within half a unit; the best unit of
    each kind in every layer stays; ties go to the unit that comes first.

    Raises
    ------
    StudyError: a ratio outside [0, 1) or one that cannot be met, scores that do not fit, or hidden dimensions.
    """
    check_ratio(ratio)
    check_fit(scores, units)
    if any(unit_set.kind == HIDDEN for unit_set in units):
        raise StudyError("joint scope weighs heads against channels; hidden dimensions have nothing beside them")
    values, costs = [], []
    for unit_set in units:
        ranked = scores.values[unit_set.key].clone()
        ranked[torch.argsort(ranked, stable=True)[-1]] = torch.inf  # the best stays
        values.append(ranked)
        costs.append(torch.full((unit_set.count,), sizes[unit_set.key]))
    order = torch.argsort(torch.cat(values), stable=True)[: -len(units.sets)]  # those at infinity are not in it
    gone = torch.zeros(sum(units.counts.values()), dtype=torch.bool)
    gone[order[: _number(torch.cat(costs), order, ratio)]] = True
    parts = zip(units, gone.split(list(units.counts.values())))
    meta = {"ratio": ratio, "scope": "joint", "pruner": scores.meta.get("pruner", "unknown")}
    return Plan({each.key: part.nonzero().squeeze(1) for each, part in parts}, dict(units.counts), meta)


def _number(costs: torch.Tensor, order: torch.Tensor, ratio: float) -> int:
    """How many units, taken in ``order``, cost nearest to ``ratio`` of all ``costs``; the fewer if two are as near."""
    removed = torch.cat([costs.new_zeros(1), costs[order].cumsum(0)]).double()
    wanted, whole = ratio * float(costs.sum()), float(costs.sum())
    number = int((removed - wanted).abs().argmin())
    if abs(float(removed[number]) - wanted) > float(costs.max()) / 2 + 1e-6:
        most = float(removed[-1]) / whole
        raise StudyError(
            f"ratio {ratio} with joint scope cannot be met: with the best unit of each kind kept in every layer at "
            f"most {most:.3f} of the parameters go; use a smaller ratio"
        )
    return number
