"""Removing the units of a plan and repairing what reads them, layer after layer on calibration text.

Memory beside the model: a hidden state a token of calibration, and the Gram matrix of one linear layer's inputs.
"""

import math
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch

from ..errors import StudyError, check_choice
from ..parameters import NonNegative, checked
from ..structure.plan import Plan
from ..structure.surgery import remove_units, sets_of
from ..structure.units import HIDDEN, UnitSet
from ..structure.walk import Walk
from .biases import add_biases, check_biases
from .outputs import output_of
from .registry import REPAIRS
from .sums import InputSums


@torch.no_grad()
def repair(
    model: Any,
    plan: Plan,
    batches: list[torch.Tensor],
    *,
    method: str = "least-squares",
    strength: float | None = None,
    log: Callable[[dict], None] = lambda row: None,
) -> list[dict]:
    """Remove the units of ``plan`` from the dense ``model`` in place, and fit the o and down projections that lose
    inputs to what the dense weights of their layer would put out.

    The layers come in order, in each the attention before the MLP. Both the dense and the repaired weights of a layer
    see what the pruned and repaired ones before it put out: each layer makes up for its own units, not for what went
    wrong before. Nothing changes but these projections; a plan that removes nothing changes nothing.

    Parameters
    ----------
    batches: int64 (samples, tokens) each: calibration. What runs at once is one batch.
    method: a name of :data:`mpstudy.repair.REPAIRS`.
    strength: its lambda, by default that of the record, in units of the mean diagonal of the Gram matrix of the inputs
        that stay; towards infinity the weights stay as they are.
    log: receives each row of the result as it is made.

    Returns
    -------
    A row for each projection: ``layer``, ``kind``, ``linear``, ``removed`` (units), ``units`` (before), ``before`` and
    ``after`` (relative squared error of its output on the calibration text), ``seconds``. None for method ``none``.

    Raises
    ------
    StudyError: as :func:`check_repair`; a plan that does not fit the model; a number that is not finite or a matrix
    that cannot be factorised, in a layer that is named. The model is then of no use, save for a wrong argument.
    """
    kinds = {key.rpartition(".")[2] for key, removed in plan.removed.items() if len(removed)}
    check_repair(model.config, kinds, method, strength)
    if method == "none":
        remove_units(model, plan)
        return []
    losing = _losing(model, plan)
    if not losing:
        return []
    if REPAIRS[method].adds_bias:
        add_biases(model, kinds)
    strength = REPAIRS[method].strength if strength is None else strength
    layers, rows = range(min(losing), max(losing) + 1), []
    walk = Walk(model, layers, batches)
    for layer in layers:
        for unit_set in losing.get(layer, []):
            take = partial(walk.inputs, layer)
            row = _repaired(model, unit_set, plan.removed[unit_set.key], take, method, strength)
            rows.append({"layer": layer} | row)
            log(rows[-1])
        if layer != layers[-1]:
            walk.advance(layer)
    return rows


def check_repair(config: Any, kinds: Collection[str], method: str, strength: float | None = None) -> None:
    """:class:`StudyError` for an unknown method, a ``strength`` that is no number >= 0 or that the method has not,
    hidden dimensions among the ``kinds`` of units, and biases that a model of this ``config`` cannot have.
    """
    check_choice("repair", method, REPAIRS)
    if strength is not None:
        checked(NonNegative, "the strength of a repair", strength)
        if REPAIRS[method].strength is None:
            have = ", ".join(name for name, record in REPAIRS.items() if record.strength is not None)
            raise StudyError(f"repair {method!r} has no strength; these have one: {have}")
    if method != "none" and HIDDEN in kinds:
        raise StudyError(f"hidden dimensions are inputs of every layer: repair {method!r} is of heads and channels")
    if REPAIRS[method].adds_bias:
        check_biases(config, kinds)


def _losing(model: Any, plan: Plan) -> dict[int, list[UnitSet]]:
    """The sets that lose units by their layer, attention first. A plan that does not fit changes nothing."""
    sets = {unit_set.key: unit_set for unit_set in sets_of(model, plan.removed)}
    found: dict[int, list[UnitSet]] = {}
    for key in plan.removed:
        if key not in sets or plan.counts[key] != sets[key].count:
            have = sets[key].count if key in sets else "no such set"
            raise StudyError(f"the plan does not fit this model: {key} has {plan.counts[key]} units, {have} here")
    for key, unit_set in sets.items():
        if len(plan.removed[key]) and unit_set.layer is not None:
            found.setdefault(unit_set.layer, []).append(unit_set)
    return found


def _repaired(
    model: Any, unit_set: UnitSet, removed: torch.Tensor, take: Callable, method: str, strength: float | None
) -> dict:
    """Remove units of one set and repair the projection that reads them; its row. ``take`` gives a linear layer's
    inputs to a function.
    """
    begin = time.perf_counter()
    linear, part = output_of(model, unit_set)
    name, sums, dense = part.name.rpartition(".")[0], InputSums.of(linear), linear.weight.double()
    take(linear, sums.add)
    _check_finite("sums of squared inputs", sums.gram, name, method)
    units = torch.ones(unit_set.count, dtype=torch.bool)
    units[removed] = False
    kept = units.repeat_interleave(part.rows_per_unit).to(dense.device)
    try:
        weight, bias = REPAIRS[method].function(dense, sums, kept, strength)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        reason = f"the Gram matrix of the inputs of {name} cannot be factorised"
        raise StudyError(f"{reason} (repair {method}, strength {strength}): use a larger one") from error
    remove_units(model, Plan({unit_set.key: removed}, {unit_set.key: unit_set.count}))
    linear.weight.copy_(weight)
    _check_finite("repaired weights", linear.weight, name, method)
    if bias is not None:
        linear.bias.add_(bias)
        _check_finite("repaired biases", linear.bias, name, method)
    after = torch.zeros_like(dense)
    after[:, kept] = linear.weight.double()
    row: dict = {"kind": unit_set.kind, "linear": name, "removed": len(removed), "units": unit_set.count}
    row |= {"before": sums.error(dense, dense * kept), "after": sums.error(dense, after, bias)}
    if not (math.isfinite(row["before"]) and math.isfinite(row["after"])):
        raise StudyError(f"the reconstruction error is not finite in {name} (repair {method})")
    return row | {"seconds": time.perf_counter() - begin}


def _check_finite(what: str, values: torch.Tensor, linear: str, method: str) -> None:
    if not torch.isfinite(values).all():
        raise StudyError(f"the {what} are not finite in {linear} (repair {method})")
