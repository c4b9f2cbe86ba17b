"""The figures of the instability notebook; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..errors import StudyError
from ..stability.changes import Change
from ..stability.perturb import PERTURBATIONS
from ..stats import summarise
from .look import COLUMN, FULL, bars, look, look_of, points, present, stamp

MEASURES = {
    "traded": "units traded (%)",
    "jaccard_channels": "Jaccard, channels",
    "jaccard_heads": "Jaccard, heads",
    "kendall_channels": "Kendall's tau, channels",
}
LEAST = 1e-4  # of the units; what is below stands at the edge of a logarithmic axis


def doses(frame: pd.DataFrame, levels: pd.DataFrame, note: str):
    """Units traded over the relative size of a change of the weights, for one pruner.

    ``frame``: ``change``, ``dose``, ``seed``, ``traded``; noise is drawn as lines, every other change as a labelled
    point. ``levels``: rows of other calibration data with ``method``, ``estimate``, ``low``, ``high``, drawn as bands.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 2.9), layout="constrained")
    kinds = {change: Change.parse(change).kind for change in frame["change"]}
    for kind, style in zip([name for name in PERTURBATIONS if PERTURBATIONS[name].panel], ("-", "--")):
        part = frame[frame["change"].map(kinds) == kind]
        if len(part):
            rows = _clipped(summarise(part, ["dose"], "traded").sort_values("dose"))
            details = look("taylor") | {"marker": "o" if style == "-" else "^", "label": PERTURBATIONS[kind].panel}
            axis.errorbar(rows["dose"], 100 * rows["mean"], yerr=100 * bars(rows), linestyle=style, **_thin(details))
    for change, part in frame[frame["change"].map(lambda name: not PERTURBATIONS[kinds[name]].panel)].groupby("change"):
        rows = _clipped(summarise(part, ["change"], "traded"))
        axis.errorbar(part["dose"].iloc[:1], 100 * rows["mean"], yerr=100 * bars(rows), **_thin(_FORMAT))
        close = frame["dose"].between(part["dose"].iloc[0], 2 * part["dose"].iloc[0], inclusive="neither")
        beside = {"xytext": (-4, -9), "ha": "right"} if close.any() else {"xytext": (4, -7)}
        place = beside | {"textcoords": "offset points", "fontsize": 7}
        axis.annotate(_label(change), (part["dose"].iloc[0], 100 * rows["mean"].iloc[0]), **place)
    for place, row in enumerate(levels.sort_values("estimate", ascending=False).to_dict("records")):
        axis.axhspan(100 * row["low"], 100 * row["high"], color=("0.55", "0.75")[place % 2], alpha=0.5, linewidth=0)
        height = (100 * row["high"], "bottom") if place == 0 else (100 * row["low"], "top")
        words = {"xycoords": ("axes fraction", "data"), "fontsize": 7, "va": height[1]}
        axis.annotate(f"another sample ({row['method']})", (0.02, height[0]), **words)
    axis.set(xscale="log", yscale="log", ylim=(100 * LEAST, 200), xlabel="‖change of weights‖ / ‖weights‖")
    axis.set_ylabel("removed units that\ntrade places (%)")
    _percent_ticks(axis.yaxis)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right")
    stamp(figure, note)
    return figure


def traded(frame: pd.DataFrame, note: str):
    """Units traded by ``change``, a panel each for what ``panel`` names, a row a change, pruners side by side.

    ``frame``: ``panel``, ``change`` (as it is to be called), ``pruner``, ``estimate``, ``low``, ``high``. Rows are
    ordered by the first pruner's.
    """
    panels = list(dict.fromkeys(frame["panel"]))
    heights = [frame.loc[frame["panel"] == panel, "change"].nunique() for panel in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(FULL, 1.0 + 0.22 * sum(heights)), layout="constrained", sharex=True, squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    pruners = present(frame)
    for axis, panel in zip(axes[:, 0], panels):
        part = frame[frame["panel"] == panel]
        leading = part[part["pruner"] == pruners[0]].sort_values("estimate", ascending=False)
        order = list(dict.fromkeys([*leading["change"], *part["change"]]))
        for offset, pruner in zip(np.linspace(-0.2, 0.2, len(pruners)), pruners):
            rows = part[part["pruner"] == pruner].rename(columns={"estimate": "mean"})
            rows = _clipped(rows.astype({"mean": float, "low": float, "high": float}))
            rows[["mean", "low", "high"]] *= 100
            places = np.array([order.index(change) for change in rows["change"]]) + offset
            points(axis, places, rows, pruner, line=False, across=True)
        axis.set_yticks(range(len(order)), order)
        axis.set(title=panel, xscale="log", xlim=(100 * LEAST, 130), ylim=(len(order) - 0.5, -0.5))
        axis.grid(axis="y", color="0.92")
    _percent_ticks(axes[-1, 0].xaxis)
    axes[-1, 0].set_xlabel("removed units that trade places (%)")
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    stamp(figure, note)
    return figure


def by_method(frame: pd.DataFrame, note: str):
    """Agreement of two calibration samples by ``method``, a panel a ``measure``: ``estimate``, ``low``, ``high``."""
    methods, measures = list(dict.fromkeys(frame["method"]))[::-1], [m for m in MEASURES if m in set(frame["measure"])]
    figure, axes = plt.subplots(
        1, len(measures), figsize=(FULL, 0.8 + 0.22 * len(methods)), layout="constrained", sharey=True, squeeze=False
    )
    for axis, measure in zip(axes[0], measures):
        scale = 100 if measure == "traded" else 1
        for row in frame[frame["measure"] == measure].to_dict("records"):
            bars = [[scale * (row["estimate"] - row["low"])], [scale * (row["high"] - row["estimate"])]]
            details = _thin(look_of(row["method"]))
            axis.errorbar(scale * row["estimate"], methods.index(row["method"]), xerr=bars, linestyle="none", **details)
        axis.set_xlabel(MEASURES[measure])
        axis.grid(axis="y", color="0.92")
    axes[0][0].set_yticks(range(len(methods)), methods)
    stamp(figure, note)
    return figure


def sources(frame: pd.DataFrame, note: str):
    """Standard deviation ``sd`` of a channel's log score by ``source``, the largest on top, on a logarithmic axis."""
    rows = summarise(frame, ["source"], "sd").sort_values("mean")
    figure, axis = plt.subplots(figsize=(COLUMN, 0.7 + 0.17 * len(rows)), layout="constrained")
    axis.errorbar(rows["mean"], range(len(rows)), xerr=bars(rows), linestyle="none", **_thin(_FORMAT))
    axis.set_yticks(range(len(rows)), [_label(source) for source in rows["source"]])
    axis.set(xscale="log", xlabel="standard deviation of a channel's log score")
    axis.grid(axis="y", color="0.92")
    stamp(figure, note)
    return figure


_FORMAT = {"color": "0.15", "marker": "D", "markersize": 3.5}


def _thin(details: dict) -> dict:
    return details | {"linewidth": 1, "elinewidth": 1, "capsize": 2}


def _clipped(rows: pd.DataFrame) -> pd.DataFrame:
    """Means and intervals that a logarithmic axis from ``LEAST`` can show."""
    return rows.assign(**{name: rows[name].clip(lower=LEAST) for name in ("mean", "low", "high")})


def _percent_ticks(axis) -> None:
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _label(source: str) -> str:
    """A change as a tick label; what is no change is called as it is."""
    try:
        return Change.parse(source).label.replace("\n", " ")
    except StudyError:
        return source
