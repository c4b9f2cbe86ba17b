"""Tables as CSV, LaTeX (booktabs) and Markdown, with means and intervals over seeds."""

from pathlib import Path

import pandas as pd

from ..stats import summarise
from ..store.files import write_atomically


def cells(frame: pd.DataFrame, rows: list[str], column: str, value: str, digits: int) -> pd.DataFrame:
    """A table of ``mean [low, high]`` with one row for each combination of ``rows`` and one column for each ``column``.

    One seed alone gives the value without an interval.
    """
    summary = summarise(frame, [*rows, column], value)
    summary["cell"] = [_cell(row, digits) for row in summary.itertuples()]
    order = list(dict.fromkeys(summary[column]))
    table = summary.pivot(index=rows, columns=column, values="cell")[order].fillna("")
    kept = dict.fromkeys(summary[rows].itertuples(index=False, name=None))
    return table.loc[[key if len(rows) > 1 else key[0] for key in kept]].reset_index().rename_axis(columns=None)


def save(frame: pd.DataFrame, path: Path, caption: str) -> None:
    """Write ``path`` as .csv, .tex (booktabs), .md and .txt (the caption)."""
    frame.to_csv(path.with_name(path.name + ".csv"), index=False)
    label = f"tab:{path.name.replace('_', '-')}"
    styled = frame.style.hide(axis="index").format(_text, escape="latex").format_index(escape="latex", axis=1)
    write_atomically(
        path.with_name(path.name + ".tex"), styled.to_latex(hrules=True, caption=_latex(caption), label=label)
    )
    write_atomically(path.with_name(path.name + ".md"), markdown(frame) + f"\n\n{caption}\n")
    write_atomically(path.with_name(path.name + ".txt"), caption + "\n")


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub-style table."""
    rows = [frame.columns, *frame.itertuples(index=False)]
    lines = [" | ".join(_text(value).replace("|", "\\|") for value in row) for row in rows]
    lines.insert(1, " | ".join("---" for _ in frame.columns))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(row, digits: int) -> str:
    if row.n == 1:
        return f"{row.mean:.{digits}f}"
    return f"{row.mean:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def _text(value) -> str:
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _latex(text: str) -> str:
    for sign in "%&_#":
        text = text.replace(sign, f"\\{sign}")
    return text
