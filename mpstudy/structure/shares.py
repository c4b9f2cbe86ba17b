"""Plans at a share of the parameters: the ratio at which methods are compared.

A ratio of *units* removes another share of the parameters in every model, since heads are large and few: of nine heads
20 % is one. Here the heads that are nearest to the share go, and as many channels as make up the rest, so that the
prunable layers lose the share to within half a channel.
"""

from collections.abc import Mapping

import torch
from torch import nn

from ..errors import StudyError, check_choice
from .plan import SCOPES, Plan, check_fit, check_ratio, lowest
from .scores import Scores
from .units import HIDDEN, Units


def unit_sizes(model: nn.Module, units: Units) -> dict[str, int]:
    """Parameters of one unit, by the key of its set; the weights themselves need not be there."""
    shapes = {name: model.get_parameter(name).shape for unit_set in units for name in unit_set.names}
    return {
        unit_set.key: sum(
            part.rows_per_unit * shapes[part.name].numel() // shapes[part.name][part.dim] for part in unit_set.slices
        )
        for unit_set in units
    }


def plan_share(scores: Scores, units: Units, sizes: Mapping[str, int], share: float, scope: str = "local") -> Plan:
    """Remove the units of lowest score that hold ``share`` of the parameters of the prunable layers.

    ``sizes``: :func:`unit_sizes`. ``scope`` ``local``: the share in every layer, hence the same number of units.
    ``global``: the share of all layers together, heads ranked among heads and channels among channels. The number of
    heads is the nearest to the share that does not exceed it alone; channels make up the rest, also the nearest number;
    of each kind the best unit of a layer stays. Ties go to the lower index.

    Raises
    ------
    StudyError: a share outside [0, 1), scores that do not fit, or hidden dimensions.
    """
    check_ratio(share)
    check_choice("scope", scope, SCOPES)
    check_fit(scores, units)
    if any(unit_set.kind == HIDDEN for unit_set in units):
        raise StudyError("a share of the parameters is met by heads and channels, not by hidden dimensions")
    removed: dict[str, torch.Tensor] = {}
    for pool in _pools(units, scope):
        whole = sum(sizes[unit_set.key] * unit_set.count for unit_set in pool)
        left = share * whole
        for kind in dict.fromkeys(unit_set.kind for unit_set in pool):
            sets = [unit_set for unit_set in pool if unit_set.kind == kind]
            last, size, count = kind == pool[-1].kind, sizes[sets[0].key], sum(unit_set.count for unit_set in sets)
            wanted = left / size if last else min(share * count, left // size)
            number = min(max(0, round(wanted)), count - len(sets))
            removed |= _chosen(scores, sets, number)
            left -= number * size
    meta = {"share": share, "scope": scope, "pruner": scores.meta.get("pruner", "unknown")}
    return Plan({unit_set.key: removed[unit_set.key] for unit_set in units}, dict(units.counts), meta)


def removed_shares(plan: Plan, units: Units, sizes: Mapping[str, int], parameters: int) -> dict[str, float]:
    """What a plan removes: ``removed`` of the parameters of the prunable layers, ``removed_model`` of all
    ``parameters`` of the model, and of the units ``heads_removed`` and ``channels_removed``.
    """
    gone = {key: len(indices) for key, indices in plan.removed.items()}
    weight = sum(sizes[key] * number for key, number in gone.items())
    found = {
        "removed": weight / sum(sizes[key] * count for key, count in units.counts.items()),
        "removed_model": weight / parameters,
    }
    for kind, name in (("attention", "heads_removed"), ("mlp", "channels_removed")):
        keys = [unit_set.key for unit_set in units if unit_set.kind == kind]
        found[name] = sum(gone[key] for key in keys) / max(1, sum(units.counts[key] for key in keys))
    return found


def _pools(units: Units, scope: str) -> list[list]:
    if scope == "global":
        return [sorted(units, key=lambda unit_set: unit_set.kind)]  # attention before mlp, layers in order
    layers = dict.fromkeys(unit_set.layer for unit_set in units)
    return [[unit_set for unit_set in units if unit_set.layer == layer] for layer in layers]


def _chosen(scores: Scores, sets: list, number: int) -> dict[str, torch.Tensor]:
    """The ``number`` units of lowest score among all of ``sets``, by key; the highest of each set stays."""
    chosen = torch.zeros(sum(unit_set.count for unit_set in sets), dtype=torch.bool)
    ranked = [scores.values[unit_set.key].clone() for unit_set in sets]
    for values in ranked:
        values[torch.argsort(values, stable=True)[-1]] = torch.inf
    chosen[lowest(torch.cat(ranked), number)] = True
    parts = chosen.split([unit_set.count for unit_set in sets])
    return {unit_set.key: part.nonzero().squeeze(1) for unit_set, part in zip(sets, parts)}
