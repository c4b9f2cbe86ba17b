"""Tables as CSV, LaTeX (booktabs) and Markdown, with means and intervals over seeds."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..errors import StudyError
from ..stats import summarise
from ..store import markdown
from ..store.files import write_atomically

PAGE = 110  # characters of small type that fit between the margins


def cells(frame: pd.DataFrame, rows: list[str], column: str, value: str, digits: int) -> pd.DataFrame:
    """A table of ``mean [low, high]`` with one row for each combination of ``rows`` and one column for each ``column``.

    One seed alone gives the value without an interval.
    """
    summary = summarise(frame, [*rows, column], value).rename(columns={"mean": "estimate"})
    return wide(summary, rows, column, spans(summary, f".{digits}f"))


def wide(frame: pd.DataFrame, rows: str | list[str], column: str, cells: Sequence[str]) -> pd.DataFrame:
    """The ``cells`` of the rows of a tidy frame as a table: a row for each combination of ``rows``, a column for each
    ``column``, both in the order in which they come first. What is not there is empty. Raises :class:`StudyError` for
    two rows in one cell.
    """
    names = [rows] if isinstance(rows, str) else list(rows)
    if frame.duplicated([*names, column]).any():
        raise StudyError(f"two rows for one cell: {', '.join(names)} and {column} do not tell them apart")
    placed = {"index": rows, "columns": column, "values": "cell", "aggfunc": "first", "sort": False}
    return frame.assign(cell=cells).pivot_table(**placed).fillna("").reset_index().rename_axis(columns=None)


def spans(frame: pd.DataFrame, form: str, scale: float = 1) -> list[str]:
    """The :func:`span` of each row, its numbers times ``scale``."""
    scaled = (scale * frame[["estimate", "low", "high"]].astype(float)).to_dict("records")
    return [span(row, form) for row in scaled]


def span(row: Mapping, form: str) -> str:
    """``estimate [low, high]`` with each number written as ``form`` says, such as ``+.1f``; an estimate without an
    interval, of a single seed, stands alone.

    >>> span({"estimate": 0.5, "low": -1, "high": 2}, "+.1f")
    '+0.5 [-1.0, +2.0]'
    """
    if math.isnan(row["low"]):
        return format(row["estimate"], form)
    return "{} [{}, {}]".format(*(format(row[name], form) for name in ("estimate", "low", "high")))


def save(frame: pd.DataFrame, path: Path, caption: str, lowest: Sequence[str] = ()) -> None:
    """Write ``path`` as .csv, .tex (booktabs, no wider than a page), .md and .txt (the caption).

    In the columns ``lowest`` the lowest number, or the cell that begins with it, is bold in LaTeX and Markdown.
    """
    frame, best = frame.reset_index(drop=True), _lowest(frame, lowest)
    frame.to_csv(path.with_name(path.name + ".csv"), index=False)
    styled = frame.style.hide(axis="index").format(_text, escape="latex").format_index(escape="latex", axis=1)
    styled = styled.apply(lambda column: ["textbf:--rwrap;" * each for each in best[column.name]])
    sides = "".join("r" if all(map(_number, frame[name])) else "l" for name in frame)
    label = f"tab:{path.name.replace('_', '-')}"
    text = styled.to_latex(
        hrules=True, caption=_latex(caption), label=label, column_format=sides, position_float="centering"
    )
    write_atomically(path.with_name(path.name + ".tex"), _fitted(text) if _width(frame) > PAGE else text)
    shown = frame.map(_text)
    shown = shown.mask(best, "**" + shown + "**")
    table = markdown.table(shown.columns, shown.itertuples(index=False))
    write_atomically(path.with_name(path.name + ".md"), f"{table}\n\n{caption}\n")
    write_atomically(path.with_name(path.name + ".txt"), caption + "\n")


def costs(cost: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """A row for each ``share`` removed: the columns of ``cost``, with ``macs`` as ``gmacs`` (1e9), and for each
    ``phase`` of ``latency`` the median with its interval in ms.
    """
    seconds = {"median_s": "estimate", "low_s": "low", "high_s": "high"}
    times = wide(latency, "share", "phase", spans(latency.rename(columns=seconds), ".0f", 1000))
    phases = {phase: f"{phase} (ms)" for phase in times.columns[1:]}
    counted = cost.assign(gmacs=(cost["macs"] / 1e9).round(2)).drop(columns="macs").round(3)
    return counted.merge(times.rename(columns=phases), on="share")


def removed_words(frame: pd.DataFrame) -> str:
    """What each ``share`` of the prunable parameters removes of the model, the heads and the channels, in words."""
    gone = frame.groupby("share")[["removed_model", "heads_removed", "channels_removed"]].mean()
    return "; ".join(
        f"{share:.0%}: {model:.1%} of the model, {heads:.1%} of the heads, {channels:.1%} of the channels"
        for share, model, heads, channels in gone.itertuples(name=None)
    )


def _lowest(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Which cells hold the lowest number of those ``columns``."""
    best = pd.DataFrame(False, index=range(len(frame)), columns=frame.columns)
    for name in columns:
        numbers = [_number(value) for value in frame[name]]
        values = [float(number.group()) if number else float("inf") for number in numbers]
        best[name] = [value == min(values) < float("inf") for value in values]
    return best


def _number(value) -> re.Match | None:
    """The number that a cell begins with; an empty cell has none."""
    return re.match(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", _text(value).replace(",", ""))


def _width(frame: pd.DataFrame) -> int:
    """Characters of a row, its columns as wide as their widest cell."""
    return sum(max(len(_text(value)) for value in [name, *frame[name]]) + 2 for name in frame)


def _fitted(text: str) -> str:
    """A table scaled to the width of the text (package graphicx)."""
    begin, end = r"\begin{tabular}", r"\end{tabular}"
    return text.replace(begin, "\\resizebox{\\textwidth}{!}{%\n" + begin).replace(end, end + "}")


def _text(value) -> str:
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _latex(text: str) -> str:
    for sign in "%&_#":
        text = text.replace(sign, f"\\{sign}")
    return text
