"""Wanda-sp: weights times the norms of their inputs, for whole units (the baseline of FLAP, arXiv 2312.11983, after
Wanda, arXiv 2306.11695, eq. 1).

A column of o or down scores the mean over its rows of ``|w_ij| * sqrt(mean x_j^2)``, a channel what its column of down
does, a head group the sum over its columns of o. Layers are scored in sequence: both matrices of a layer on one pass
through it as it is, the next layer on what this one puts out without the units that go.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ..errors import check_choice
from ..registry import STEEL, Look
from ..structure.hooks import masked
from ..structure.plan import Plan, check_ratio, make_plan
from ..structure.scores import Scores
from ..structure.shares import plan_share, unit_sizes
from ..structure.units import Units, UnitSet
from ..structure.walk import Walk
from .activations import Moments, check_units, column_weight, moments_while
from .registry import PRUNERS


@PRUNERS.register("wanda-sp", look=Look("wanda-sp", STEEL, "d"))
@torch.no_grad()
def wanda_sp(
    model: nn.Module,
    batches: Sequence[torch.Tensor],
    units: Units,
    *,
    seed: int = 0,
    ratio: float = 0.2,
    of: str = "units",
) -> Scores:
    """Scores for the plan that removes ``ratio`` from every layer; another plan needs scores of its own.

    ``of`` says of what: of the ``units`` of each kind, as in the release, which :func:`..structure.plan.make_plan`
    removes, or of the ``parameters``, which :func:`..structure.shares.plan_share` does, both in local scope. ``seed``
    is not used. Raises :class:`StudyError` for a ratio that leaves a layer without units, hidden dimensions, and inputs
    that are not finite.
    """
    check_ratio(ratio)
    check_choice("of of pruner 'wanda-sp'", of, ("units", "parameters"))
    check_units("wanda-sp", units)
    layers = range(units.sets[0].layer or 0, (units.sets[-1].layer or 0) + 1)
    meta = {"pruner": "wanda-sp", "ratio": ratio, "of": of}
    walk = Walk(model, layers, list(batches))
    values: dict[str, torch.Tensor] = {}
    for layer in layers:
        here = Units(tuple(unit_set for unit_set in units if unit_set.layer == layer))
        moments = moments_while(partial(deque, walk.outputs(layer), 0), model, here)
        found = {each.key: _importance(model, each, moments[each.key]) for each in here}
        values |= found
        with masked(model, here, _kept(_plan(model, Scores(found), here, ratio, of))):
            walk.advance(layer)
    return Scores(values, meta)


def _importance(model: nn.Module, unit_set: UnitSet, moments: Moments) -> torch.Tensor:
    columns = column_weight(model, unit_set).abs().mean(dim=0) * moments.mean_square.sqrt()
    return columns.view(unit_set.count, -1).sum(dim=1).float().cpu()


def _kept(plan: Plan) -> dict[str, torch.Tensor]:
    """The units that stay, bool (units,), by the key of their set."""
    kept = {key: torch.ones(count, dtype=torch.bool) for key, count in plan.counts.items()}
    for key, removed in plan.removed.items():
        kept[key][removed] = False
    return kept


def _plan(model: nn.Module, scores: Scores, here: Units, ratio: float, of: str) -> Plan:
    if of == "units":
        return make_plan(scores, here, ratio)
    return plan_share(scores, here, unit_sizes(model, here), ratio)
