"""What came out of a comparison: a table on the terminal, and a page with both reports side by side."""

import os
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from ..errors import StudyError
from ..store.files import write_atomically
from .compare import COMPARED, REASONS, Cell
from .judged import Judged
from .pages import caption, provenance, render
from .status import load_result

SHOWN = 20  # cells outside that the terminal shows; the page shows all of them
HEADER = ("run", "compared", *COMPARED, "not compared")


def load(home: Path, runs: Iterable[str]) -> dict[str, dict]:
    """The results of ``runs`` in a report folder; StudyError for the first that is not there."""
    found = {run: load_result(home, run) for run in runs}
    for run, result in found.items():
        if result is None:
            raise StudyError(
                f"no result {run!r} in {os.path.relpath(home)} to compare with; "
                f"`python -m mpstudy report --profile {home.name}` makes it"
            )
    return found


def tell(page: Path, cells: list[Cell]) -> bool:
    """Print the comparison that led to ``page``; return whether all agrees.

    Raises StudyError where nothing could be compared.
    """
    if not any(cell.status in COMPARED for cell in cells):
        raise StudyError("nothing could be compared: no row of the new run is in the report")
    rows = [HEADER, *(tuple(row) for row in _by_run(cells))]
    widths = [max(len(_count(value)) for value in column) for column in zip(*rows, strict=True)]
    for name, *counts in rows:
        texts = (_count(count).rjust(width) for count, width in zip(counts, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *texts]))
    outside = [cell for cell in cells if cell.status == "outside"]
    for cell in outside[:SHOWN]:
        print(f"outside: {where(cell)}: {' -> '.join(_short(*both(cell)))} (allowed: {allowed(cell)})")
    if len(outside) > SHOWN:
        print(f"... and {len(outside) - SHOWN} more on the page")
    if left := reasons(cells):
        print("not compared: " + ", ".join(f"{count:,} {reason}" for reason, count in left))
    print(f"page: {os.path.relpath(page)}")
    print(sentence(cells))
    return not outside


def tell_claim(old: Judged, new: Judged) -> bool:
    """Print what is found of a claim in the report and here; return whether the verdict is the same."""
    print(f"claim {old.claim.id}: {old.claim.question}")
    for side, one in (("report", old), ("here", new)):
        print(f"  {side}: {one.label}: {one.sentence}")
    return old.verdict == new.verdict


def write_page(old_home: Path, page: Path, cells: list[Cell], old: dict[str, dict], new: dict[str, dict]) -> None:
    """Write ``page`` in the folder of the ``new`` results, by run as the ``old`` ones; equal ones give equal pages."""
    home = page.parent
    runs = [
        {"name": run, "figures": _figures(old_home, home, old[run], result), "columns": _by_column(cells, run)}
        for run, result in new.items()
    ]
    facts = [dict(provenance([results[run] for run in new])) for results in (old, new)]
    text = render(
        "comparison.html.j2",
        profile=home.name,
        report=Path(os.path.relpath(old_home, home)).as_posix(),
        verdict=sentence(cells),
        header=HEADER,
        counts=[[_count(value) for value in row] for row in _by_run(cells)],
        reasons=[(f"{count:,}", reason) for reason, count in reasons(cells)],
        outside=[(cell, *both(cell), allowed(cell)) for cell in cells if cell.status == "outside"],
        runs=runs,
        facts=[(name, *(side.get(name, "–") for side in facts)) for name in facts[0] | facts[1]],
        row=_row_name,
    )
    write_atomically(page, text)


def sentence(cells: list[Cell]) -> str:
    """The verdict in one line."""
    counts = Counter(cell.status for cell in cells)
    total = sum(counts[status] for status in COMPARED)
    if counts["outside"]:
        return f"NOT REPRODUCED: {counts['outside']:,} of {total:,} compared values are outside their tolerance"
    return f"reproduced: of {total:,} values {counts['equal']:,} are equal, {counts['within']:,} within their tolerance"


def reasons(cells: list[Cell]) -> list[tuple[str, int]]:
    """What was not compared, in words, with how many cells."""
    counts = Counter(cell.status for cell in cells)
    return [(text, counts[status]) for status, text in REASONS.items() if counts[status]]


def where(cell: Cell) -> str:
    """A cell's address: run, table, row and column."""
    return " · ".join(part for part in (cell.run, cell.table, _row_name(cell), cell.column) if part)


def _row_name(cell: Cell) -> str:
    return ", ".join(f"{name}={value}" for name, value in cell.row)


def both(cell: Cell) -> tuple[str, str]:
    """The values of both sides, with as many digits (six or more) as show that they differ."""
    if not all(type(value) is float for value in (cell.old, cell.new)):
        return _plain(cell.old), _plain(cell.new)
    shown = [(f"{cell.old:.{digits}g}", f"{cell.new:.{digits}g}") for digits in range(6, 17)]
    return next((pair for pair in shown if pair[0] != pair[1]), (repr(cell.old), repr(cell.new)))


def _plain(value) -> str:
    return "missing" if value is None else str(value)


def _short(old: str, new: str, width: int = 60) -> tuple[str, str]:
    """Two texts in one line each; long ones begin shortly before they differ."""
    same = len(os.path.commonprefix([old, new]))
    start = max(0, same - 20) if max(len(old), len(new)) > width else 0
    return tuple("…" * (start > 0) + " ".join(text[start : start + width].split()) for text in (old, new))


def allowed(cell: Cell) -> str:
    """The tolerance of a cell in words."""
    if cell.bound is None:
        return "the same on both sides"
    if not isinstance(cell.bound, dict):
        return "equal only"
    parts = [f"{cell.bound['abs']:g}"] if cell.bound.get("abs") else []
    parts += [f"{100 * cell.bound['rel']:g} %"] if cell.bound.get("rel") else []
    return "± " + " + ".join(parts) if parts else "equal only"


def _by_run(cells: list[Cell]) -> list[list]:
    """A row like ``HEADER`` for each run, and one for all."""
    rows = []
    for run in dict.fromkeys(cell.run for cell in cells):
        counts = Counter(cell.status for cell in cells if cell.run == run)
        compared = [counts[status] for status in COMPARED]
        rows.append([run, sum(compared), *compared, counts.total() - sum(compared)])
    return [*rows, ["all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))]]


def _count(value) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _by_column(cells: list[Cell], run: str) -> list[tuple]:
    """Table, column, compared, equal, outside, largest difference and tolerance of every compared column."""
    address = lambda cell: (cell.table, cell.column)  # noqa: E731
    mine = sorted((cell for cell in cells if cell.run == run and cell.status in COMPARED and cell.column), key=address)
    rows = []
    for (table, column), group in groupby(mine, key=address):
        group = list(group)
        counts = Counter(cell.status for cell in group)
        gaps = [abs(cell.new - cell.old) for cell in group if {type(cell.old), type(cell.new)} <= {int, float}]
        worst = f"{max(gaps):.2g}" if gaps else "–"
        rows.append((table, column, len(group), counts["equal"], counts["outside"], worst, allowed(group[0])))
    return rows


def _figures(old_home: Path, home: Path, old: dict, new: dict) -> list[dict]:
    """The figures of either side, each with whether the two are the same picture."""
    figures = []
    for name in sorted(name for name in {*old["files"], *new["files"]} if name.endswith(".png")):
        sides = [_side("report", old_home, home, name), _side("reproduction", home, home, name)]
        pictures = [(home / side["image"]).read_bytes() for side in sides if side["image"]]
        same = len(pictures) == 2 and pictures[0] == pictures[1]
        figures.append({"name": Path(name).stem.replace("_", " "), "same": same, "sides": sides})
    return figures


def _side(title: str, folder: Path, home: Path, name: str) -> dict:
    """A figure in a report folder; its image is a path as seen from ``home``, or None where it is missing."""
    image = Path(os.path.relpath(folder / name, home)).as_posix() if (folder / name).is_file() else None
    return {"title": title, "image": image, "caption": caption(folder, name.removesuffix(".png"))}
