"""The figures of the envelope's notebook; look and conventions are those of :mod:`mpstudy.figures.look`."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .look import COLUMN, bars, look, points, stamp

_STYLES = {"spectral": "-", "plain": "--"}
_MARKERS = "oDs"


def convergence(traces: pd.DataFrame, tolerances: Sequence[float], note: str):
    """``residual`` over ``gradients``: a colour a radius ``rho``, a dash a ``solver``, thick lines for longer rows.

    ``traces``: also ``tokens`` of a row and ``seed``, a line each. ``tolerances`` are dotted levels.
    """
    radii, lengths = sorted(set(traces["rho"])), sorted(set(traces["tokens"]))
    colours = dict(zip(radii, sns.color_palette("colorblind")))
    figure, axis = plt.subplots(figsize=(COLUMN, 2.8), layout="constrained")
    for (rho, length, solver, _), part in traces.groupby(["rho", "tokens", "solver", "seed"], sort=False):
        width = 1 if length == lengths[0] else 2
        style = {"color": colours[rho], "linestyle": _STYLES[solver], "linewidth": width}
        axis.plot(part["gradients"], part["residual"], **style)
    for tolerance in tolerances:
        axis.axhline(tolerance, color="0.5", linestyle=":", linewidth=1)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 1), "textcoords": "offset points"}
        axis.annotate(f"{tolerance:g}", (1, tolerance), ha="right", fontsize=7, **place)
    axis.set(yscale="log", xlabel="gradients of the calibration loss", ylabel="relative prox residual")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    names = [Line2D([], [], color=colours[rho], label=f"ρ = {rho:g}") for rho in radii]
    names += [Line2D([], [], color="0.3", linestyle=_STYLES[s], label=s) for s in _STYLES if s in set(traces["solver"])]
    names += [Line2D([], [], color="0.3", linewidth=2, label=f"rows of {length}") for length in lengths[1:]]
    axis.legend(handles=names)
    stamp(figure, note)
    return figure


def over_steps(frame: pd.DataFrame, note: str):
    """A ``measure`` a line over the ``step`` of the solver, with ``estimate``, ``low`` and ``high``."""
    figure, axis = plt.subplots(figsize=(COLUMN, 2.5), layout="constrained")
    colours = sns.color_palette("colorblind")
    for colour, marker, (measure, rows) in zip(colours, _MARKERS, frame.groupby("measure", sort=False)):
        details = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1, "capsize": 2, "label": measure}
        axis.errorbar(rows["step"], rows["estimate"], yerr=bars(rows, "estimate"), **details)
    steps = sorted(set(frame["step"]))
    axis.set(xscale="log", ylim=(0, 1.05), xlabel="steps of the prox solver", ylabel="Jaccard index of channels")
    axis.set_xticks(steps, [str(step) for step in steps])
    axis.minorticks_off()
    axis.legend(loc="best")
    stamp(figure, note)
    return figure


def over_radius(frame: pd.DataFrame, note: str):
    """Units traded between two samples over ``rho`` (per cent, ``estimate``, ``low``, ``high``), beside the row of
    radius 0, which is Taylor, to whose masks Moreau's tend, as a band.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 2.3), layout="constrained")
    (taylor,) = frame[frame["rho"] == 0].to_dict("records")
    rows = frame[frame["rho"] > 0].sort_values("rho").rename(columns={"estimate": "mean"})
    points(axis, rows["rho"], rows, "moreau", line=True)
    blue = look("taylor")["color"]
    axis.axhspan(taylor["low"], taylor["high"], color=blue, alpha=0.2, linewidth=0)
    axis.axhline(taylor["estimate"], color=blue, linewidth=1, label=look("taylor")["label"])
    axis.set(xscale="log", xlabel="radius ρ of the envelope (weight² per nat)")
    axis.set_ylabel("removed units traded\nbetween two samples (%)")
    radii = list(rows["rho"])
    axis.set_xticks(radii, [f"{rho:g}" for rho in radii])
    axis.minorticks_off()
    axis.legend(loc="best")
    stamp(figure, note)
    return figure


def periods(frame: pd.DataFrame, note: str):
    """The released code's steps: the ``loss`` (top) and the ``norm`` of the offset (below), a column a ``panel``.

    ``frame``: also ``step`` and ``seed``, a line each, and ``limit``, the norm of an offset whose every element has the
    size ``soft``, dotted.
    """
    panels = list(dict.fromkeys(frame["panel"]))
    size = (COLUMN, 2.8)
    figure, axes = plt.subplots(2, len(panels), figsize=size, layout="constrained", sharex=True, squeeze=False)
    for (top, below), panel in zip(axes.T, panels):
        part = frame[frame["panel"] == panel]
        for _, rows in part.groupby("seed"):
            for axis, column in ((top, "loss"), (below, "norm")):
                axis.plot(rows["step"], rows[column], marker="o", markersize=2.5, linewidth=0.8, color="#0173b2")
        below.axhline(part["limit"].iloc[0], color="0.4", linestyle=":", linewidth=1)
        top.set_title(panel)
        below.set(xlabel="step", ylim=(0, None))
        below.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0][0].set_ylabel("loss (nats)")
    axes[1][0].set_ylabel("norm of the offset")
    place = {"xytext": (0, 1), "textcoords": "offset points", "fontsize": 7}
    axes[1][0].annotate("soft · √N", (0, axes[1][0].lines[-1].get_ydata()[0]), **place)
    stamp(figure, note)
    return figure


def variants(agreement: pd.DataFrame, quality: pd.DataFrame, chance: float, note: str):
    """Each ``variant`` a row: its ``agreement`` with Taylor (top), its perplexity against Taylor's (below).

    Both frames: ``variant``, ``measure`` (a colour each), ``estimate``, ``low`` and ``high``; ``quality`` in per cent
    of perplexity (log). ``chance``: the Jaccard index of two random masks.
    """
    order = list(dict.fromkeys(agreement["variant"]))[::-1]
    heights = [len(order), len(order) - 1]
    size = (COLUMN, 1.6 + 0.21 * sum(heights))
    figure, (top, below) = plt.subplots(2, 1, figsize=size, layout="constrained", height_ratios=heights)
    for axis, frame in ((top, agreement), (below, quality)):
        shown = [name for name in order if name in set(frame["variant"])]
        groups = list(frame.groupby("measure", sort=False))
        for offset, colour, marker, (measure, rows) in zip((0.15, -0.15, 0), sns.color_palette(), _MARKERS, groups):
            places = np.array([shown.index(name) for name in rows["variant"]]) + offset
            details = {"color": colour, "marker": marker, "markersize": 4, "linestyle": "none", "capsize": 2}
            axis.errorbar(rows["estimate"], places, xerr=bars(rows, "estimate"), label=measure, **details)
        axis.set_yticks(range(len(shown)), shown)
        axis.grid(axis="y", color="0.92")
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, columnspacing=1)
    top.axvline(chance, color="0.5", linestyle=":", linewidth=1)
    top.annotate("chance", (chance, 0.99), xycoords=("data", "axes fraction"), va="top", fontsize=7, rotation=90)
    top.set_xlabel("agreement with Taylor")
    below.axvline(0, color="0.5", linestyle=":", linewidth=1)
    below.set_xlabel("perplexity against Taylor (log, %)")
    stamp(figure, note)
    return figure
