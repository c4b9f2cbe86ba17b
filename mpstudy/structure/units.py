"""Prunable units: what is removed as one, and which slices of which parameters it is made of.

A *head group* is one KV head with the query heads that read it (query head h reads KV head ``h // n_rep``; without
grouped-query attention it is one head). An *MLP channel* is one hidden neuron. In every coupled parameter the rows (or
columns) of a unit lie side by side, so a unit set is described by a number of rows per unit, and a first row where a
parameter holds several kinds of rows. Which parameters these are is the model family's
(:mod:`mpstudy.structure.families`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ..errors import StudyError, check_choice
from . import families
from .families import Part, family

KINDS = ("attention", "mlp")
HIDDEN = "hidden"


@dataclass(frozen=True)
class Slice:
    """A parameter, or from row or column ``start`` on a part of it, cut into ``rows_per_unit`` neighbouring rows
    (``dim`` 0) or columns (``dim`` 1) for each unit.
    """

    name: str  # full parameter name, e.g. "model.layers.3.mlp.down_proj.weight"
    dim: int
    rows_per_unit: int
    start: int = 0

    def view(self, value: torch.Tensor, count: int) -> torch.Tensor:
        """The slice of ``value``, a tensor of the parameter's shape, with ``dim`` as (``count``, ``rows_per_unit``)."""
        shape = (count, self.rows_per_unit)
        return value.narrow(self.dim, self.start, count * self.rows_per_unit).unflatten(self.dim, shape)


@dataclass(frozen=True)
class UnitSet:
    """The units of one kind in one layer, or the hidden dimensions, which are in all of them (``layer`` None)."""

    layer: int | None
    kind: str
    count: int
    slices: tuple[Slice, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters of the slices, each once."""
        return tuple(dict.fromkeys(part.name for part in self.slices))

    @property
    def key(self) -> str:
        """The name under which scores and masks of this set are stored."""
        return self.kind if self.layer is None else f"layers.{self.layer}.{self.kind}"

    @property
    def width(self) -> int:
        """Channels a unit has on its root (query rows of a head group, 1 for an MLP channel)."""
        return self.slices[0].rows_per_unit


@dataclass(frozen=True)
class Units:
    """All prunable units of a model, in layer order, attention before MLP."""

    sets: tuple[UnitSet, ...]

    def __iter__(self) -> Iterator[UnitSet]:
        return iter(self.sets)

    def __getitem__(self, key: str) -> UnitSet:
        """The set that scores and masks store under ``key``; an unknown one raises :class:`StudyError`."""
        check_choice("unit set", key, self._by_key)
        return self._by_key[key]

    @cached_property
    def _by_key(self) -> dict[str, UnitSet]:
        return {unit_set.key: unit_set for unit_set in self.sets}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Parameters with at least one unit, in the order of the sets."""
        return tuple(name for unit_set in self.sets for name in unit_set.names)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Units per set."""
        return {unit_set.key: unit_set.count for unit_set in self.sets}

    def parameters(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The prunable parameters of ``model`` by name. What Accelerate keeps off the devices is given from there."""
        return {name: _values(model, name) for name in self.names}

    def offloaded(self, model: nn.Module) -> list[str]:
        """The prunable parameters that Accelerate loads for each use (``device_map`` with ``cpu`` or ``disk``)."""
        return [name for name in self.names if model.get_parameter(name).is_meta]


def _values(model: nn.Module, name: str) -> torch.Tensor:
    parameter, (path, _, leaf) = model.get_parameter(name), name.rpartition(".")
    if not parameter.is_meta:
        return parameter
    hook = getattr(model.get_submodule(path), "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        if getattr(each, "weights_map", None) is not None:
            return each.weights_map[leaf]
    raise StudyError(f"{name} has no values: it is on the meta device")


def unit_sets(model: nn.Module, layer: int) -> Iterator[UnitSet]:
    """The head groups and then the MLP channels of a layer, as they are now."""
    adapter, module_of = family(model.config), families.layers(model)[layer].get_submodule
    for kind, path, find in (("attention", adapter.attention, adapter.heads), ("mlp", adapter.mlp, adapter.channels)):
        module, place = module_of(path), ".".join(filter(None, (adapter.layers, str(layer), path)))
        count, parts = find(module)
        yield UnitSet(layer, kind, count, tuple(part for each in parts for part in _slices(module, place, each)))


def _slices(module: nn.Module, place: str, part: Part) -> Iterator[Slice]:
    """A part's slice of the weight and, where the units are rows, of the bias."""
    name = f"{place}.{part.layer}"
    yield Slice(f"{name}.weight", part.dim, part.rows_per_unit, part.start)
    if part.dim == 0 and module.get_submodule(part.layer).bias is not None:
        yield Slice(f"{name}.bias", 0, part.rows_per_unit, part.start)


def hidden_set(model: Any) -> UnitSet:
    """The hidden dimensions: LLM-Pruner's channel mode. A unit is a column of the embeddings (of tied ones once), of
    the output head and of every layer that reads the residual stream, a row of those that write to it, and an element
    of every norm. Raises :class:`StudyError` for a model whose function depends on their number or on their mean.
    """
    refused = f"hidden dimensions of {model.config.model_type} cannot be pruned: its"
    if any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        raise StudyError(f"{refused} norms take their mean")
    if hasattr(model.get_input_embeddings(), "embed_scale"):
        raise StudyError(f"{refused} embeddings are scaled by their number")
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    parts = [
        part
        for layer in range(len(families.layers(model)))
        for units in unit_sets(model, layer)
        for part in units.slices
    ]
    readers, writers = ({part.name.rpartition(".")[0] for part in parts if part.dim == dim} for dim in (0, 1))
    inside, found = f".{family(model.config).attention}.", []
    for name, parameter in model.named_parameters():
        place, _, leaf = name.rpartition(".")
        if parameter is embedding or parameter is head or (place in readers and leaf == "weight"):
            found.append(Slice(name, 1, 1))
        elif place in writers or place not in readers and inside not in name:
            found.append(Slice(name, 0, 1))
    return UnitSet(None, HIDDEN, embedding.shape[1], tuple(found))


def parse_layers(text: str, n_layers: int | None) -> range:
    """``"4-25"`` (inclusive) or ``"7"`` to a range of layer indices, checked against the depth if it is known."""
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", str(text))
    if not found:
        raise StudyError(f"layers {text!r} are not of the form '4-25' or '7'")
    first, last = found.groups()
    chosen = range(int(first), int(last or first) + 1)
    if n_layers is not None and (not chosen or chosen[-1] >= n_layers):
        raise StudyError(f"layers {text!r} are not inside this model's layers 0-{n_layers - 1}")
    return chosen


def ranges(text: str, n_layers: int | None) -> dict[str, range]:
    """``"4-25"`` for both kinds of units, or a range for each, such as ``"attention 4-25, mlp 2-28"``; a kind that is
    not named there has none. Checked as by :func:`parse_layers`.
    """
    if not re.match("[a-z]+ ", str(text)):
        return dict.fromkeys(KINDS, parse_layers(text, n_layers))
    found = {}
    for part in text.split(","):
        kind, _, of_kind = part.strip().partition(" ")
        check_choice("unit kind", kind, [kind for kind in KINDS if kind not in found])
        found[kind] = parse_layers(of_kind.strip(), n_layers)
    return found


def prunable_units(model: nn.Module, layers: str) -> Units:
    """The units in the inclusive layer ranges ``layers`` (see :func:`ranges`), or with ``"hidden"`` the hidden
    dimensions (:func:`hidden_set`).
    """
    if layers == HIDDEN:
        return Units((hidden_set(model),))
    chosen = ranges(layers, n_layers := len(families.layers(model)))
    wanted = {(kind, layer) for kind, of_kind in chosen.items() for layer in of_kind}
    sets = (unit_set for layer in range(n_layers) for unit_set in unit_sets(model, layer))
    return Units(tuple(unit_set for unit_set in sets if (unit_set.kind, unit_set.layer) in wanted))


REDUCTIONS = {  # of the coupled layers, shape (layers, ...)
    "sum": lambda values: values.sum(dim=0),
    "mean": lambda values: values.mean(dim=0),
    "max": lambda values: values.amax(dim=0),
    "prod": lambda values: values.prod(dim=0),
    "first": lambda values: values[0],
}


def reduce_to_units(
    unit_set: UnitSet, values: dict[str, torch.Tensor], reduction: str = "sum", signed: bool = False
) -> torch.Tensor:
    """Element-wise ``values`` (parameter name -> tensor of its shape) as one number a unit, float32 (count,).

    In each coupled layer the values of a channel (a row or column) are summed; with ``signed``, the absolute value of
    the sum counts. ``reduction`` (:data:`REDUCTIONS`) makes one number of the coupled layers, and a unit's is the sum
    over its channels (LLM-Pruner, arXiv 2305.11627, section 3.2). Where layers have unequally many channels a unit, as
    under grouped-query attention, the fewer are spread evenly over the many.
    """
    if reduction == "sum" and not signed:
        return sum(_unit_sums(values[part.name], part, unit_set.count) for part in unit_set.slices)  # type: ignore[return-value]
    of_layers: dict[tuple[str, int], torch.Tensor] = {}
    for part in unit_set.slices:  # the bias of a layer belongs to its rows
        key, sums = (part.name.rpartition(".")[0], part.start), _channel_sums(values[part.name], part, unit_set.count)
        of_layers[key] = of_layers[key] + sums if key in of_layers else sums
    widest = max(sums.shape[1] for sums in of_layers.values())
    spread = [sums.repeat(1, widest // sums.shape[1]) * (sums.shape[1] / widest) for sums in of_layers.values()]
    stacked = torch.stack(spread)
    return REDUCTIONS[reduction](stacked.abs() if signed else stacked).sum(dim=1)


def _unit_sums(value: torch.Tensor, part: Slice, count: int) -> torch.Tensor:
    """Sums over all but the units, (count,)."""
    view = part.view(value, count)
    return view.sum(dim=[dim for dim in range(view.dim()) if dim != part.dim], dtype=torch.float32)


def _channel_sums(value: torch.Tensor, part: Slice, count: int) -> torch.Tensor:
    """Sums over all but the channels, (count, rows_per_unit)."""
    view = part.view(value, count).movedim((part.dim, part.dim + 1), (0, 1)).float()
    return view.flatten(2).sum(dim=2) if view.dim() > 2 else view
