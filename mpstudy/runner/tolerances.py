"""What a profile says about comparing two of its reports: tolerances of columns, and what is not compared.

Every entry names a column, or one of one table as ``table.column``, which counts more than the plain name.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..errors import StudyError, check_choice

KEY, EQUAL = "exact", "equal"  # a float column that names its row; a result in words, truth values or whole numbers
BOUNDS = {"rel", "abs"}
ROUNDING = {"rel": 1e-9}  # of doubles that hold results of fp32, whose own digits end at 1e-7


@dataclass(frozen=True)
class Tolerances:
    """How the columns of a profile's tables are compared.

    ``columns``: `exact`, `equal` or ``{abs: a, rel: r}``, where numbers within ``a + r * |old|`` agree; ``default``
    stands for the others. ``timings`` and ``sentences`` (words made of numbers that are compared themselves) are not
    compared. ``pooled`` names tables, or columns of tables, that pool over a run's seeds or methods, and
    ``next_seed`` the rows (by a column's value) that depend on the seed after theirs as well: where a report has
    only a part of the seeds, they are other quantities.
    """

    columns: dict = field(default_factory=dict)
    default: dict = field(default_factory=dict)
    timings: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()
    next_seed: dict = field(default_factory=dict)

    @classmethod
    def read(cls, profile: str, raw: dict) -> "Tolerances":
        """From the entries of a profile file; StudyError for a tolerance that is none."""
        columns = dict(raw.get("tolerances", {}))
        for column, tolerance in columns.items():
            if not (_is_bound(tolerance) or tolerance in (KEY, EQUAL) and column != "default"):
                raise StudyError(
                    f"profile {profile}: tolerance of {column} must be `exact` or `equal` (not for the default), "
                    f"`{{rel: x}}`, `{{abs: x}}` or `{{abs: x, rel: y}}` with numbers >= 0, not {tolerance!r}"
                )
        for name in ("timings", "sentences", "pooled"):
            if not all(isinstance(entry, str) for entry in raw.get(name, [])):
                raise StudyError(f"profile {profile}: {name} must be a list of names, not {raw[name]!r}")
        lists = {name: tuple(raw.get(name, [])) for name in ("timings", "sentences", "pooled")}
        return cls(columns, columns.pop("default", {}), **lists, next_seed=raw.get("next_seed", {}))

    def of(self, table: str, column: str) -> str | dict | None:
        """The tolerance that the profile states for a column, if it states one."""
        return self.columns.get(f"{table}.{column}", self.columns.get(column))

    def skips(self, table: str, column: str, whole: bool) -> str | None:
        """Why a column is not compared: ``timing``, ``sentence`` or ``pooled`` (where a report is not ``whole``)."""
        names = {column, f"{table}.{column}"}
        if names & set(self.timings):
            return "timing"
        if names & set(self.sentences):
            return "sentence"
        if not whole and {table, f"{table}.{column}"} & set(self.pooled):
            return "pooled"
        return None

    def to_nine_digits(self) -> "Tolerances":
        """The same where numbers must be equal, but for the order of a sum, which hangs on where memory lies."""
        strict = {
            name: tolerance if tolerance in (KEY, EQUAL) else ROUNDING for name, tolerance in self.columns.items()
        }
        return replace(self, columns=strict, default=ROUNDING)

    def check_names(self, results: Iterable[dict]) -> None:
        """StudyError for an entry that names nothing in the tables of ``results``."""
        pairs = {
            (name, column)
            for result in results
            for name, table in result["tables"].items()
            for column in table["rows"][0]
        }
        both = {f"{table}.{column}" for table, column in pairs}
        for name in {*self.columns, *self.timings, *self.sentences, *self.next_seed} - both:
            check_choice("column in the profile's lists for comparisons", name, {column for _, column in pairs})
        for name in set(self.pooled) - both:
            check_choice("table in the profile's list `pooled`", name, {table for table, _ in pairs})


def _is_bound(tolerance: object) -> bool:
    return (
        isinstance(tolerance, dict)
        and bool(tolerance)
        and tolerance.keys() <= BOUNDS
        and all(type(value) in (int, float) and value >= 0 for value in tolerance.values())
    )
