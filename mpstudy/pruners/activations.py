"""What goes into the layers whose columns are units (o of heads, down of channels): its statistics, and where a method
needs it, what goes into them once the layers before are pruned.

No weight is written to. A removed unit's columns are zeroed on their way into o or down, which is the same function as
its removal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import StudyError
from ..structure import families
from ..structure.units import HIDDEN, Slice, Units, UnitSet

ROWS = 4096  # added at a time, so that few are held in float64


class Moments:
    """Mean and squared deviations of vectors that come in parts, each float64 (columns,).

    Parts are joined by the update of Chan, Golub and LeVeque (1983): the result is that of all vectors at once.
    """

    def __init__(self) -> None:
        self.count = 0  # vectors, one a token
        self.mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, vectors: torch.Tensor) -> None:
        """Take in ``vectors`` (..., columns) of any dtype."""
        for rows in vectors.detach().flatten(0, -2).split(ROWS):
            self._join(rows.double())

    def _join(self, rows: torch.Tensor) -> None:
        mean, whole = rows.mean(dim=0), self.count + len(rows)
        shift = mean - self.mean
        between = shift.square() * (self.count * len(rows) / whole)
        self._squares = self._squares + (rows - mean).square().sum(dim=0) + between
        self.mean = self.mean + shift * (len(rows) / whole)
        self.count = whole

    @property
    def variance(self) -> torch.Tensor:
        """Mean squared deviation from the mean."""
        return self._squares / self.count

    @property
    def mean_square(self) -> torch.Tensor:
        """Mean square."""
        return self.variance + self.mean.square()


def check_units(pruner: str, units: Units) -> None:
    """:class:`StudyError` for hidden dimensions, which are columns of many layers."""
    if any(unit_set.kind == HIDDEN for unit_set in units):
        others = "taylor, taylor2, taylor-mix, taylor-vector, l1, l2 or random"
        raise StudyError(f"{pruner} scores heads and channels; hidden dimensions are scored by {others}")


def columns_of(unit_set: UnitSet) -> Slice:
    """The slice of a unit set that is columns: those of o or of down, unit after unit."""
    (part,) = (part for part in unit_set.slices if part.dim == 1)
    return part


def column_weight(model: nn.Module, unit_set: UnitSet) -> torch.Tensor:
    """The weight of o or down, float64 (rows, columns)."""
    return Units((unit_set,)).parameters(model)[columns_of(unit_set).name].detach().double()


@torch.no_grad()
def input_moments(model: nn.Module, batches: Sequence[torch.Tensor], units: Units) -> dict[str, Moments]:
    """The :class:`Moments` of what goes into o and down of the model as it is, by the key of the unit set.

    ``batches``: int64 (samples, tokens); how tokens are spread over them is all the same. Raises :class:`StudyError`
    where an input is not finite.
    """
    with _watched(model, units) as found:
        for batch in batches:
            _forward(model, batch)
    return found


class LayerInputs:
    """The calibration text at one layer after the other, from ``layers[0]`` on.

    Held are the hidden states of all ``batches``, int64 (samples, tokens), at one layer.
    """

    def __init__(self, model: nn.Module, batches: Sequence[torch.Tensor], layers: range):
        self.model, self.layer = model, layers[0]
        self._hidden: list[torch.Tensor] = []
        self._options: list[dict[int, dict]] = []  # of a batch, by layer: masks of sliding windows differ
        modules = families.layers(model)
        hooks = [
            modules[each].register_forward_pre_hook(partial(self._note, each), with_kwargs=True) for each in layers
        ]
        try:
            for batch in batches:
                _forward(model, batch)
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, layer: int, module: nn.Module, arguments: tuple, options: dict) -> None:
        if layer == self.layer:
            self._hidden.append(arguments[0])
            self._options.append({})
        self._options[-1][layer] = options

    def moments(self, units: Units) -> dict[str, Moments]:
        """As :func:`input_moments`, of ``units`` in this layer, on what the layers before put out."""
        with _watched(self.model, units) as found:
            self._run()
        return found

    def advance(self, units: Units, removed: Mapping[str, torch.Tensor]) -> None:
        """Go on to the next layer: its inputs are what this one puts out without the ``removed`` units (key ->
        indices) among ``units``.
        """
        with _without(self.model, units, removed):
            self._hidden = self._run()
        self.layer += 1

    def _run(self) -> list[torch.Tensor]:
        module = families.layers(self.model)[self.layer]
        outputs = [module(hidden, **options[self.layer]) for hidden, options in zip(self._hidden, self._options)]
        return [output[0] if isinstance(output, tuple) else output for output in outputs]


def _forward(model: Any, batch: torch.Tensor) -> None:
    embedding = model.get_input_embeddings().weight
    model.base_model(input_ids=batch if embedding.is_meta else batch.to(embedding.device), use_cache=False)


@contextmanager
def _watched(model: nn.Module, units: Units) -> Iterator[dict[str, Moments]]:
    found = {unit_set.key: Moments() for unit_set in units}

    def add(unit_set: UnitSet, module: nn.Module, arguments: tuple) -> None:
        found[unit_set.key].add(arguments[0])

    with _hooked(model, units, add):
        yield found
    for unit_set in units:
        if not torch.isfinite(found[unit_set.key].mean_square).all():
            name = columns_of(unit_set).name.rpartition(".")[0]
            raise StudyError(f"the inputs of {name} are not finite; the weights or the tokens are not usable")


@contextmanager
def _without(model: nn.Module, units: Units, removed: Mapping[str, torch.Tensor]) -> Iterator[None]:
    def zero(unit_set: UnitSet, module: nn.Module, arguments: tuple) -> tuple:
        gone = torch.zeros(unit_set.count, dtype=torch.bool)
        gone[removed[unit_set.key]] = True
        columns = gone.repeat_interleave(columns_of(unit_set).rows_per_unit)
        return arguments[0].masked_fill(columns.to(arguments[0].device), 0), *arguments[1:]

    with _hooked(model, units, zero):
        yield


@contextmanager
def _hooked(model: nn.Module, units: Units, hook: Callable) -> Iterator[None]:
    """Call ``hook`` with the unit set before each o or down, for the length of the block."""
    readers = [(unit_set, columns_of(unit_set).name.rpartition(".")[0]) for unit_set in units]
    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(hook, each)) for each, name in readers]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
