"""Pruning in several steps: scores are taken anew after each, on what is left (LLM-Pruner's iterative mode)."""

import copy
from collections.abc import Callable

from ..parameters import Count, checked
from .plan import Plan, make_plan
from .scores import Scores
from .surgery import remove_units
from .units import Units, prunable_units


def plan_in_steps(
    model, score: Callable[[object, Units], Scores], layers: str, ratio: float, steps: int, scope: str = "local"
) -> Plan:
    """A plan at ``ratio`` for ``model``, which is not changed, made in ``steps`` equal steps.

    ``score(model, units)`` is called before each on what is left, such as ``lambda model, units:
    pruners.score("taylor", model, batches, units)``. Raises StudyError for ``steps`` below 1, and as
    :func:`mpstudy.structure.plan.make_plan` does.
    """
    checked(Count, "steps", steps)
    plan, smaller = None, model
    for step in range(1, steps + 1):
        if plan is not None:
            smaller = remove_units(copy.deepcopy(model), plan)
        units = prunable_units(smaller, layers)
        plan = make_plan(score(smaller, units), units, ratio * step / steps, scope, plan)
    return plan
