"""Registries: for each kind of thing one place where a name has one record, with everything that is asked about it.

There are two ways to register, both at module level and with a literal name as first argument, since the identity of
a result reads the names from the syntax tree: the decorator ``@PRUNERS.register("taylor", look=...)``, which makes the
record of the function below it, and the statement ``FAMILIES.add("llama", record)``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import StudyError, check_choice

Function = TypeVar("Function", bound=Callable)

# seaborn's palette "colorblind", and a colour of Tol's "muted" that no form of colour blindness takes for one of them.
BLUE, ORANGE, GREEN, VERMILLION, PINK = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"
BROWN, ROSE, GREY, YELLOW, SKY, INDIGO = "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9", "#332288"
STEEL, BRICK = "#3b5b8c", "#b22222"  # told apart from all of these
FREE_COLOURS, FREE_MARKERS = ("#661100", "#882255", "#117733"), "*hd8H"  # their numbers have no common divisor


@dataclass(frozen=True)
class Look:
    """How figures show what is registered: its name in legends, a colour, and a marker of matplotlib's."""

    label: str
    colour: str
    marker: str


class Registry(Mapping):
    """Records by name, in the order of registration. ``kind`` is what messages call a name; ``record`` makes the record
    of a decorated function from it and from the facts given to :meth:`register`.
    """

    def __init__(self, kind: str, record: Callable | None = None):
        self.kind = kind
        self._record: Any = record
        self._records: dict[str, Any] = {}

    def register(self, name: str, **facts: Any) -> Callable[[Function], Function]:
        """A decorator that registers a function under ``name`` and gives it back as it is."""

        def decorate(function: Function) -> Function:
            self.add(name, self._record(function, **facts))
            return function

        return decorate

    def add(self, name: str, record: Any) -> None:
        """Register ``record``. A name or a look that is taken raises :class:`StudyError`."""
        if name in self._records:
            raise StudyError(f"{self.kind} {name!r} is registered already; choose another name")
        look = getattr(record, "look", None)
        for other, theirs in self._looks().items():
            if look and (look.colour, look.marker) == (theirs.colour, theirs.marker):
                raise StudyError(f"{self.kind} {name!r} has the look of {other!r}; choose another colour or marker")
        self._records[name] = record

    def look(self, name: str) -> Look:
        """The look of ``name``: its own, or a free one for a name that was registered without.

        The first name without a look gets the first free pair of :data:`FREE_COLOURS` and :data:`FREE_MARKERS`, the
        second name the next, in the order of registration. Raises :class:`StudyError` when none is left.
        """
        if self[name].look:
            return self[name].look
        taken = {(look.colour, look.marker) for look in self._looks().values()}
        count = len(FREE_COLOURS) * len(FREE_MARKERS)
        pairs = [(FREE_COLOURS[i % len(FREE_COLOURS)], FREE_MARKERS[i % len(FREE_MARKERS)]) for i in range(count)]
        free = [pair for pair in pairs if pair not in taken]
        place = [other for other, record in self.items() if not record.look].index(name)
        if place >= len(free):
            raise StudyError(f"no free look is left for {self.kind} {name!r}; register it with one")
        return Look(name, *free[place])

    def _looks(self) -> dict[str, Look]:
        """The looks that names were registered with."""
        return {name: record.look for name, record in self.items() if getattr(record, "look", None)}

    def __getitem__(self, name: str) -> Any:
        check_choice(self.kind, name, self._records)
        return self._records[name]

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)
