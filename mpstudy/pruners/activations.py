"""What goes into the layers whose columns are units (o of heads, down of channels): its statistics.

No weight is written to. A removed unit's columns are zeroed on their way into o or down, which is the same function as
its removal (:func:`mpstudy.structure.hooks.masked`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import StudyError
from ..structure.hooks import reader, watched
from ..structure.units import HIDDEN, Units, UnitSet
from ..structure.walk import run_layers

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


def column_weight(model: nn.Module, unit_set: UnitSet) -> torch.Tensor:
    """The weight of o or down, float64 (rows, columns)."""
    return Units((unit_set,)).parameters(model)[reader(unit_set).name].detach().double()


def input_moments(model: Any, batches: Sequence[torch.Tensor], units: Units) -> dict[str, Moments]:
    """The :class:`Moments` of what goes into o and down of the model as it is, by the key of the unit set.

    ``batches``: int64 (samples, tokens); how tokens are spread over them is all the same. Raises :class:`StudyError`
    where an input is not finite.
    """

    def run() -> None:
        for batch in batches:
            run_layers(model, batch)

    return moments_while(run, model, units)


@torch.no_grad()
def moments_while(run: Callable[[], Any], model: nn.Module, units: Units) -> dict[str, Moments]:
    """The same of all that goes into these layers while ``run()`` lasts."""
    names = {reader(unit_set).name: unit_set.key for unit_set in units}
    found = {key: Moments() for key in names.values()}
    with watched(model, names, lambda name, inputs: found[names[name]].add(inputs)):
        run()
    for name, key in names.items():
        if not torch.isfinite(found[key].mean_square).all():
            linear = name.rpartition(".")[0]
            raise StudyError(f"the inputs of {linear} are not finite; the weights or the tokens are not usable")
    return found
