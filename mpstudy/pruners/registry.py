"""The registry of pruners and what it knows of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..registry import Look, Registry


@dataclass(frozen=True)
class Pruner:
    """A pruner: its function ``(model, batches, units, *, seed, **settings) -> Scores`` and facts about it.

    ``needs_data``: the scores depend on the calibration text. ``draws``: they are nothing but a draw by ``seed``.
    ``near_taylor``: a relative of ``taylor``, to which figures compare it seed by seed. ``settings``: a dataclass with
    the defaults of a function that takes them as ``**settings``.
    """

    function: Callable
    look: Look | None = None
    needs_data: bool = True
    draws: bool = False
    near_taylor: bool = False
    settings: object = None

    def repetitions(self, seeds: Sequence[int]) -> Sequence[int]:
        """Those of ``seeds`` that give other scores: one is enough without data and without a draw."""
        return seeds if self.needs_data or self.draws else seeds[:1]

    def seed(self, repetition: int) -> int:
        """The ``seed`` of a repetition: its own for scores that are a draw, or else 0, so that repetitions differ in
        nothing but the calibration sample.
        """
        return repetition if self.draws else 0


PRUNERS = Registry("pruner", Pruner)
