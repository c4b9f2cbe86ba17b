"""Whether a model has head groups and MLP channels enough for shares of the parameters, told by its config alone."""

import textwrap
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ..errors import StudyError
from .plan import Plan
from .scores import Scores
from .shares import plan_share, unit_sizes
from .units import Units, prunable_units


def check_shares(config: Any, layers: str, shares: Iterable[float]) -> None:
    """Raise :class:`StudyError` unless :func:`.shares.plan_share` meets each of ``shares`` in every one of ``layers``
    to within half a unit of the kind that makes up the rest, and removes anything at all.
    """
    model = _without_weights(config)
    units = prunable_units(model, layers)
    sizes = unit_sizes(model, units)
    even = Scores({key: torch.zeros(count) for key, count in units.counts.items()}, {})
    for share in shares:
        _check(plan_share(even, units, sizes, share), units, sizes, share)


def _check(plan: Plan, units: Units, sizes: dict[str, int], share: float) -> None:
    nothing = share > 0 and not any(len(indices) for indices in plan.removed.values())
    for layer in dict.fromkeys(unit_set.layer for unit_set in units):
        sets = [unit_set for unit_set in units if unit_set.layer == layer]
        whole = sum(sizes[each.key] * each.count for each in sets)
        gone = sum(sizes[each.key] * len(plan.removed[each.key]) for each in sets)
        if nothing or abs(share * whole - gone) > sizes[sets[-1].key] / 2 + 1e-6:
            has = " and ".join(f"{each.count} units of {each.kind}" for each in sets)
            raise StudyError(
                f"share {share} cannot be met: layer {layer} has {has}, of which one each stays, and would lose "
                f"{gone / whole:.3f} of its parameters; choose another share"
            )


def _without_weights(config: Any) -> nn.Module:
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise StudyError(f"no model can be made of this config of {config.model_type}: {reason}") from error
