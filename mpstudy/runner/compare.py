"""Compare every number of two results of one run: pure functions of what the results hold.

The rows of a table are joined on the columns that name them: those that hold no float and have no tolerance of their
own, and those whose tolerance is `exact`. Every other cell is compared or has a reason not to be.
"""

import math
from dataclasses import dataclass

from ..errors import StudyError
from .tolerances import EQUAL, KEY, Tolerances

COMPARED = ("equal", "within", "outside")
REASONS = {
    "timing": "timings and memory",
    "sentence": "sentences made of compared numbers",
    "pooled": "over other seeds or methods than here",
    "unmatched": "without a counterpart in the report",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the report (``old``) beside that of the new run (``new``).

    ``row`` holds the names and values of the columns that name the row. ``status`` is one of ``COMPARED`` or a key of
    ``REASONS``; ``bound`` is the tolerance it was compared with. A table, row or column that only one side has is one
    cell that is outside, and a row of names alone is one that is equal; ``column`` is empty where it is not a column.
    """

    run: str
    table: str
    row: tuple[tuple[str, object], ...]
    column: str
    old: object
    new: object
    status: str
    bound: dict | str | None = None


def compare(old: dict, new: dict, tolerances: Tolerances, whole: bool = True) -> list[Cell]:
    """The cells of two results of one run.

    A ``whole`` new result must have every table and row of the old one and the same parameters. Of a part, such as
    fewer seeds, only what both have is compared.
    """
    run, cells = new["run"], []
    if whole:
        cells += [
            Cell(run, "parameters", (), name, old["parameters"].get(name), new["parameters"].get(name), "outside")
            for name in old["parameters"] | new["parameters"]
            if old["parameters"].get(name) != new["parameters"].get(name)
        ]
    for table in old["tables"] | new["tables"]:
        before, after = (result["tables"].get(table, {}).get("rows") for result in (old, new))
        if before and after:
            seeds = [result["parameters"].get("seeds", []) for result in (old, new)]
            cells += _Table(run, table, tolerances, whole, *seeds).compare(before, after)
        elif after or whole:
            cells.append(Cell(run, table, (), "", _rows(before), _rows(after), "outside"))
    return cells


def _rows(rows: list | None) -> str:
    return f"a table of {len(rows)}" if rows else "no such table"


@dataclass(frozen=True)
class _Table:
    """One table to compare; ``old_seeds`` and ``new_seeds`` are those of the two runs."""

    run: str
    name: str
    tolerances: Tolerances
    whole: bool
    old_seeds: list
    new_seeds: list

    def compare(self, old: list[dict], new: list[dict]) -> list[Cell]:
        keys = self._keys(old + new)
        before, after = self._by_key(old, keys), self._by_key(new, keys)
        shared = [column for column in new[0] if column in old[0] and column not in keys]
        cells = [self._one_sided(column, column in old[0]) for column in sorted(old[0].keys() ^ new[0].keys())]
        for key, row in after.items():
            if key in before:
                cells += [self._cell(key, column, before[key], row) for column in shared] or [self._row(key, "equal")]
            elif self.whole:
                cells.append(self._row(key, "outside", in_old=False))
            else:
                cells += [self._unmatched(key, column, row) for column in shared] or [self._row(key, "unmatched")]
        if self.whole:
            cells += [self._row(key, "outside", in_new=False) for key in before if key not in after]
        return cells

    def _one_sided(self, column: str, in_old: bool) -> Cell:
        """The cell that stands for a column which only one side has."""
        status = self.tolerances.skips(self.name, column, self.whole) or "outside"
        sides = _side(in_old, "column"), _side(not in_old, "column")
        return Cell(self.run, self.name, (), column, *sides, status)

    def _row(self, key: tuple, status: str, *, in_old: bool = True, in_new: bool = True) -> Cell:
        """The cell that stands for a whole row."""
        return Cell(self.run, self.name, key, "", _side(in_old, "row"), _side(in_new, "row"), status)

    def _unmatched(self, key: tuple, column: str, new: dict) -> Cell:
        """A cell of a row that the report does not have."""
        status = self.tolerances.skips(self.name, column, self.whole) or "unmatched"
        return Cell(self.run, self.name, key, column, None, new[column], status)

    def _keys(self, rows: list[dict]) -> list[str]:
        """The columns that name a row; a column that only one side has names none."""
        floats = {column for row in rows for column, value in row.items() if isinstance(value, float)}
        stated = {column: self.tolerances.of(self.name, column) for column in rows[0] if column in rows[-1]}
        skipped = {column for column in stated if self.tolerances.skips(self.name, column, whole=True)}
        return [
            column
            for column, tolerance in stated.items()
            if tolerance == KEY or (tolerance is None and column not in floats | skipped)
        ]

    def _by_key(self, rows: list[dict], keys: list[str]) -> dict[tuple, dict]:
        """The rows by their names; StudyError where two have the same."""
        found = {}
        for row in rows:
            key = tuple((column, row[column]) for column in keys)
            if key in found:
                raise StudyError(
                    f"{self.run}, table {self.name}: two rows are named {dict(key)}; "
                    f"a column that tells them apart needs the tolerance `exact`"
                )
            found[key] = row
        return found

    def _cell(self, key: tuple, column: str, old: dict, new: dict) -> Cell:
        reason = self.tolerances.skips(self.name, column, self.whole)
        if not reason and not self.whole and self._follows_another_seed(new):
            reason = "pooled"
        bound = self.tolerances.of(self.name, column) or self.tolerances.default
        status = reason or _status(old[column], new[column], bound)
        return Cell(self.run, self.name, key, column, old[column], new[column], status, None if reason else bound)

    def _follows_another_seed(self, row: dict) -> bool:
        """Whether the row depends on the seed after its own, and the two runs have different ones there."""
        depends = any(row.get(column) == value for column, value in self.tolerances.next_seed.items())
        return depends and _after(row.get("seed"), self.old_seeds) != _after(row.get("seed"), self.new_seeds)


def _side(there: bool, what: str) -> str:
    return f"a {what}" if there else f"no such {what}"


def _after(seed, seeds: list):
    """The seed after ``seed`` in a list that begins anew at its end."""
    return seeds[(seeds.index(seed) + 1) % len(seeds)] if seed in seeds else None


def _status(old, new, bound: dict | str) -> str:
    if old == new or (_is_number(old) and _is_number(new) and math.isnan(old) and math.isnan(new)):
        return "equal"
    if bound == EQUAL or not (_is_number(old) and _is_number(new)):
        return "outside"
    limit = bound.get("abs", 0.0) + bound.get("rel", 0.0) * abs(old)
    return "within" if abs(new - old) <= limit else "outside"


def _is_number(value) -> bool:
    return type(value) in (int, float)
