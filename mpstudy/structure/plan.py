"""A plan: which units are removed. The removed set is the *mask* that stability is measured on."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import StudyError, check_choice
from ..parameters import Count, Ratio, checked
from ..store.files import write_atomically
from .scores import Scores
from .units import Units, UnitSet

SCOPES = ("local", "global")


@dataclass(frozen=True)
class Plan:
    """``removed``: unit-set key -> sorted int64 unit indices. ``counts``: key -> units before. ``meta``: ratio,
    scope, pruner.
    """

    removed: dict[str, torch.Tensor]
    counts: dict[str, int]
    meta: dict = field(default_factory=dict)

    def mask(self) -> dict:
        """The removed sets as numpy arrays, as :mod:`mpstudy.stability.agreement` takes them."""
        return {key: indices.numpy() for key, indices in self.removed.items()}

    def to_json(self) -> dict:
        """Plain lists for a JSON file."""
        return {
            "removed": {k: v.tolist() for k, v in self.removed.items()},
            "counts": self.counts,
            "meta": self.meta,
        }

    @classmethod
    def from_json(cls, data: dict) -> "Plan":
        """The inverse of :meth:`to_json`; indices that are no unit, or come twice, raise :class:`StudyError`."""
        removed = {key: torch.tensor(indices, dtype=torch.int64) for key, indices in data["removed"].items()}
        for key, indices in removed.items():
            units = data["counts"][key]
            if indices.unique().numel() != indices.numel() or ((indices < 0) | (indices >= units)).any():
                raise StudyError(f"the plan's removed units of {key} must be distinct numbers in 0 to {units - 1}")
        return cls(removed, dict(data["counts"]), dict(data["meta"]))

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        write_atomically(path, json.dumps(self.to_json()))


def check_ratio(ratio: Any) -> float:
    """A pruning ratio in [0, 1), or :class:`StudyError`."""
    return checked(Ratio, "the pruning ratio", ratio)


def check_multiple(multiple: Any, scope: str) -> None:
    """:class:`StudyError` unless ``multiple`` is a whole number of at least 1, and 1 with global scope."""
    if checked(Count, "multiple", multiple) > 1 and scope == "global":
        raise StudyError("multiple needs local scope: global scope leaves layers of any width")


def removed_count(units: int, width: int, ratio: float) -> int:
    """Units to remove at ``ratio``, by LLM-Pruner's rule.

    With C = units * width channels, n = C - int(C * (1 - ratio)) channels go, in whole units: n // width.
    """
    channels = units * width
    return (channels - int(channels * (1 - ratio))) // width


def make_plan(
    scores: Scores, units: Units, ratio: float, scope: str = "local", before: Plan | None = None, multiple: int = 1
) -> Plan:
    """Remove the lowest-scoring units.

    ``multiple``: with local scope, the number of MLP channels that stay in a layer, or of hidden dimensions, is rounded
    up to a multiple of it.
    ``before``: what is removed already, when ``units`` and ``scores`` are those of a model that it has made smaller.
    ``ratio`` and the plan that is returned are of the model before both.

    ``scope`` ``local``: the same ratio in every layer. ``global``: ranked over the layers, head groups and channels
    each among themselves, since their scores sum over different numbers of weights. Ties go to the lower index. The
    only head group of a layer stays.

    Raises
    ------
    StudyError: a ratio outside [0, 1), a ``multiple`` below 1 or with global scope, scores that do not fit the units or
    are not finite, or a layer left without a unit.
    """
    check_ratio(ratio)
    check_choice("scope", scope, SCOPES)
    check_multiple(multiple, scope)
    check_fit(scores, units)
    before = before or Plan({}, units.counts)
    chosen = (
        _local(scores, units, ratio, before, multiple) if scope == "local" else _global(scores, units, ratio, before)
    )
    removed = {key: joined(before, key, indices) for key, indices in chosen.items()}
    for key, indices in removed.items():
        if len(indices) == before.counts[key]:
            raise StudyError(f"ratio {ratio} with {scope} scope removes all units of {key}; use a smaller ratio")
    meta = {"ratio": ratio, "scope": scope, "pruner": scores.meta.get("pruner", "unknown")}
    return Plan(removed, dict(before.counts), meta)


def _local(scores: Scores, units: Units, ratio: float, before: Plan, multiple: int) -> dict[str, torch.Tensor]:
    rounding = {"attention": 1}
    return {
        u.key: lowest(scores.values[u.key], _missing([u], ratio, before, rounding.get(u.kind, multiple))) for u in units
    }


def _missing(sets: list[UnitSet], ratio: float, before: Plan, multiple: int = 1) -> int:
    """How many units of ``sets``, which are of one kind, are still to be removed."""
    units = sum(before.counts[u.key] for u in sets)
    left = units - removed_count(units, sets[0].width, ratio)
    left = min(units, math.ceil(left / multiple) * multiple)
    return max(0, units - left - sum(len(before.removed.get(u.key, ())) for u in sets))


def joined(before: Plan, key: str, indices: torch.Tensor) -> torch.Tensor:
    """``indices`` of the units that ``before`` has left, as indices among all, and those that it has removed."""
    gone = before.removed.get(key, indices.new_empty(0))
    left = torch.ones(before.counts[key], dtype=torch.bool)
    left[gone] = False
    return torch.cat([gone, left.nonzero().squeeze(1)[indices]]).sort().values


def _global(scores: Scores, units: Units, ratio: float, before: Plan) -> dict[str, torch.Tensor]:
    removed = {unit_set.key: torch.empty(0, dtype=torch.int64) for unit_set in units}
    several = [unit_set for unit_set in units if before.counts[unit_set.key] > 1]  # a single one stays
    for kind in {unit_set.kind for unit_set in several}:
        sets = [unit_set for unit_set in several if unit_set.kind == kind]
        count = _missing(sets, ratio, before)
        chosen = torch.zeros(sum(u.count for u in sets), dtype=torch.bool)
        chosen[lowest(torch.cat([scores.values[u.key] for u in sets]), count)] = True
        parts = chosen.split([u.count for u in sets])
        removed |= {u.key: part.nonzero().squeeze(1) for u, part in zip(sets, parts)}
    return removed


def lowest(values: torch.Tensor, count: int) -> torch.Tensor:
    """The indices of the ``count`` lowest values in ascending order; ties go to the lower index."""
    return torch.argsort(values, stable=True)[:count].sort().values


def check_fit(scores: Scores, units: Units) -> None:
    """:class:`StudyError` unless ``scores`` are finite and have a value for every unit."""
    for unit_set in units:
        value = scores.values.get(unit_set.key)
        if value is None or value.shape != (unit_set.count,):
            have = "none" if value is None else tuple(value.shape)
            raise StudyError(
                f"the scores do not fit the model: {unit_set.key} has {unit_set.count} units, scores {have}"
            )
        if not math.isfinite(float(value.sum())):
            raise StudyError(f"the scores of {unit_set.key} are not finite")
