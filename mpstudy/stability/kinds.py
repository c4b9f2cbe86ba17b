"""The language of changes: a name such as ``bfloat16``, ``noise-1e-2`` or ``corpus-wiki`` is a kind and its value.

:data:`PERTURBATIONS` are the changes of the weights and the arithmetic (:mod:`mpstudy.stability.perturb`),
:data:`CHANGES` those of the calibration and of the model as a whole (:mod:`mpstudy.stability.changes`). The names stand
in profiles and in result tables.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import StudyError
from ..registry import Registry


@dataclass(frozen=True)
class Value:
    """What stands after the dash of a change: its place-holder in messages, what is allowed, and how the text is read;
    ``read`` gives None for what is not allowed.
    """

    form: str
    allowed: str
    read: Callable[[str], object]


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    ``function``: of a perturbation ``(model, seed) -> context manager``, with a third argument where it has a
    ``value``; see :mod:`mpstudy.stability.changes` for the others. ``label``: on the ticks of figures, in up to two
    lines; without one the name. ``panel``: the heading of its panel where figures compare doses.
    """

    function: Callable
    value: Value | None = None
    label: str = ""
    panel: str = ""


PERTURBATIONS = Registry("perturbation", Kind)
CHANGES = Registry("change", Kind)


def kinds() -> dict[str, Kind]:
    """All kinds of changes by name."""
    return {**PERTURBATIONS, **CHANGES}


@dataclass(frozen=True)
class Change:
    """A change of kind ``kind``, with the text of its ``value`` (empty for a kind without one)."""

    kind: str
    value: str = ""

    @classmethod
    def parse(cls, name: str) -> "Change":
        """The change called ``name``; :class:`StudyError` for a name that is none, or a value that is not allowed."""
        known = kinds()
        if name in known and not known[name].value:
            return cls(name)
        fitting = [kind for kind, facts in known.items() if facts.value and f"{name}-".startswith(f"{kind}-")]
        if not fitting:
            raise StudyError(f"unknown change {name!r}; known: {', '.join(sorted(forms()))}")
        kind = max(fitting, key=len)
        change = cls(kind, name[len(kind) + 1 :])
        if change.dose is None:
            raise StudyError(f"change {name!r} needs {known[kind].value.allowed} after its dash")
        return change

    @property
    def dose(self):
        """The value, read: a number, or the name of a corpus; None for a kind without one."""
        value = kinds()[self.kind].value
        return value.read(self.value) if value else None

    @property
    def label(self) -> str:
        """The name as a tick label of up to two lines."""
        return kinds()[self.kind].label or str(self).replace("-", "\n", 1)

    def __str__(self) -> str:
        return f"{self.kind}-{self.value}" if self.value else self.kind


def forms() -> list[str]:
    """What changes may be called, such as ``bfloat16`` and ``noise-SIGMA``."""
    return [f"{kind}-{facts.value.form}" if facts.value else kind for kind, facts in kinds().items()]


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float | None]:
    """A reader of numbers between ``low`` and ``high``, both excluded."""

    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            return None
        return value if low < value < high else None

    return read


SIGMA = Value("SIGMA", "a finite number > 0", number(float, 0))
COUNT = Value("N", "a whole number of at least 2", number(int, 1))
SHARE = Value("SHARE", "a share in (0, 1)", number(float, 0, 1))
