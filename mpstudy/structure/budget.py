"""How many units of each kind go at a ratio, for methods that seek a mask of a given size over all layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import StudyError, check_choice
from .plan import check_ratio, make_plan
from .scores import Scores
from .shares import plan_share, unit_sizes
from .units import Units

OF = ("units", "parameters")


def check_budget(ratio: Any, of: Any) -> None:
    """:class:`StudyError` for a ratio outside [0, 1) or an unknown measure of it."""
    check_ratio(ratio)
    check_choice("measure of the ratio", of, OF)


def even_removal(model: nn.Module, units: Units, ratio: float, of: str) -> dict[str, int]:
    """Units to remove of each set, spread evenly over the layers. Over all layers they are as many of each kind as with
    scope ``global`` :func:`.plan.make_plan` removes at a ``ratio`` of the units, or :func:`.shares.plan_share` at a
    ratio of the parameters.

    Raises
    ------
    StudyError: a ratio at which nothing goes, or no unit of a layer would stay.
    """
    check_budget(ratio, of)
    even = Scores({unit_set.key: _even(unit_set.count) for unit_set in units}, {})
    if of == "units":
        plan = make_plan(even, units, ratio, "global")
    else:
        plan = plan_share(even, units, unit_sizes(model, units), ratio, "global")
    found = {unit_set.key: len(plan.removed[unit_set.key]) for unit_set in units}
    if not any(found.values()):
        raise StudyError(f"a ratio of {ratio} of the {of} removes not one unit; choose a larger one")
    return found


def of_kinds(units: Units, of_sets: Mapping[str, int]) -> dict[str, int]:
    """Numbers by set as sums by kind, without those that are 0."""
    found: dict[str, int] = {}
    for unit_set in units:
        found[unit_set.kind] = found.get(unit_set.kind, 0) + of_sets[unit_set.key]
    return {kind: number for kind, number in found.items() if number}


def _even(count: int) -> torch.Tensor:
    """Scores that take from each layer the same part, and its last unit after all others."""
    values = torch.arange(count) / count
    values[-1] = 2
    return values
