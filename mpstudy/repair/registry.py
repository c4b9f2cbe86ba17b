"""The registry of repairs and what it knows of each."""

from collections.abc import Callable
from dataclasses import dataclass

from ..registry import GREY, Look, Registry


@dataclass(frozen=True)
class Repair:
    """A repair of one linear layer: a function ``(weight, sums, kept, strength) -> (weight, bias)``.

    ``weight`` is the dense one, float64 (rows, columns), ``sums`` those of its inputs
    (:class:`mpstudy.repair.sums.InputSums`), ``kept`` bool (columns,). It returns the weight of the columns that stay,
    and what is added to the bias, float64 (rows,), or None. ``strength``: the default of its lambda, None for one that
    has none. ``adds_bias``: it needs layers with a bias.
    """

    function: Callable | None
    look: Look | None = None
    strength: float | None = None
    adds_bias: bool = False


REPAIRS = Registry("repair", Repair)

REPAIRS.add("none", Repair(None, Look("none", GREY, "o")))
