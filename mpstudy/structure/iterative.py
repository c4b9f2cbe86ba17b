"""Pruning in several steps: scores are taken anew after each, on what is left (LLM-Pruner's iterative mode)."""

import copy
from collections.abc import Callable

from ..parameters import Count, checked
from .plan import Plan, joined, lowest, make_plan
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


def replan_in_steps(plan: Plan, model, score: Callable[[object, Units], Scores], layers: str, steps: int) -> Plan:
    """As many units of each set as ``plan`` removes from ``model``, which is not changed, but chosen in ``steps``: each
    removes the same part of them by the scores of what is left, ``score(model, units)`` as in :func:`plan_in_steps`.

    Raises StudyError for ``steps`` below 1.
    """
    checked(Count, "steps", steps)
    found = Plan({key: indices[:0] for key, indices in plan.removed.items()}, plan.counts, plan.meta | {"steps": steps})
    for step in range(1, steps + 1):
        smaller = model if step == 1 else remove_units(copy.deepcopy(model), found)
        scores = score(smaller, prunable_units(smaller, layers))
        removed = {}
        for key, wanted in plan.removed.items():
            missing = round(len(wanted) * step / steps) - len(found.removed[key])
            removed[key] = joined(found, key, lowest(scores.values[key], missing))
        found = Plan(removed, found.counts, found.meta)
    return found
