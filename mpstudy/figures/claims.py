"""The figure of the primary claims; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import pandas as pd

from .look import COLUMN, stamp


def forest(frame: pd.DataFrame, note: str):
    """Each ``claim`` a row, in a panel for its ``unit``: ``estimate`` with ``low`` and ``high``, a line at zero and the
    span within its ``margin`` shaded.
    """
    units = list(dict.fromkeys(frame["unit"]))
    heights = [int((frame["unit"] == unit).sum()) for unit in units]
    size = (COLUMN, 0.5 + 0.45 * len(units) + 0.2 * sum(heights))
    figure, axes = plt.subplots(len(units), 1, figsize=size, layout="constrained", squeeze=False, height_ratios=heights)
    for axis, unit in zip(axes[:, 0], units):
        rows = frame[frame["unit"] == unit].reset_index(drop=True)
        for place, row in rows.iterrows():
            corner = (-row["margin"], place - 0.4)
            axis.add_patch(plt.Rectangle(corner, 2 * row["margin"], 0.8, color="0.88", linewidth=0))
        bars = [rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]]
        axis.errorbar(rows["estimate"], rows.index, xerr=bars, color="0.15", marker="o", markersize=3.5, **_LINES)
        axis.axvline(0, color="0.5", linestyle=":", linewidth=1)
        axis.set_yticks(rows.index, rows["claim"])
        axis.set(xlabel=unit, ylim=(len(rows) - 0.5, -0.5))
    stamp(figure, note)
    return figure


_LINES = {"linestyle": "none", "elinewidth": 1, "capsize": 2}
