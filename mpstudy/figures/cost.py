"""The figures of what instability costs; look and conventions are those of :mod:`mpstudy.figures.look`.

Perplexities are compared by 100 x the difference of their logs, "% of perplexity (log)". A *method* is a pruner, or one
with what sets it apart behind a comma, "taylor, 7 times the data": drawn like the pruner, with white markers.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ..stats import of_spread
from .look import COLUMN, CORPORA, dodge, look_of, points, present, stamp


def table_one(frame: pd.DataFrame, samples: pd.DataFrame, note: str):
    """Mean |difference| of log-perplexity between two formats of scoring, over the ``share``: a panel a ``corpus``, a
    line a pruner, and as a band what two calibration ``samples`` make.

    Both frames: ``share``, ``corpus``, ``estimate``, ``low`` and ``high`` (% of log-perplexity); ``frame`` also
    ``by_chance``, a dash. The axis is logarithmic. What is below a fifth of the least positive estimate, as the 0 of
    equal models, lies on its lower edge.
    """
    figure, axes = _panels(frame, 1.9)
    estimates = pd.concat([frame["estimate"], samples["estimate"]])
    floor = estimates[estimates > 0].min() / 5
    frame, samples = (_from(floor, each) for each in (frame, samples))
    pruners = present(frame)
    for corpus, axis in axes.items():
        band = samples[samples["corpus"] == corpus]
        _band(axis, band)
        for offset, pruner in zip(dodge(len(pruners), 0.35), pruners):  # per cent, so that intervals do not overlap
            rows = frame[(frame["corpus"] == corpus) & (frame["pruner"] == pruner)]
            points(axis, 100 * rows["share"] + offset, rows, pruner, line=True)
            dash = {"marker": "_", "markersize": 9, "linestyle": "none", "color": look_of(pruner)["color"]}
            name = None if pruner != pruners[0] else "the windows alone"
            axis.plot(100 * rows["share"] + offset, rows["by_chance"], label=name, **dash)
        axis.set(yscale="log", ylim=(floor, None))
        _plain_ticks(axis, LogLocator(subs=(1, 2, 5)))
    axis.set_xticks([100 * share for share in dict.fromkeys(frame["share"])])
    axis.set_xlim(100 * frame["share"].min() - 1.5, 100 * frame["share"].max() + 1.5)
    axis.set_xlabel("parameters removed from the prunable layers (%)")
    axis.xaxis.set_major_formatter("{x:g}")
    figure.supylabel("|bf16 − fp16|, % of perplexity (log)", fontsize=8)
    _legend(axis)
    stamp(figure, note)
    return figure


def _band(axis, rows: pd.DataFrame) -> None:
    """What two calibration samples make, over the shares, or over the width of the figure where there is one."""
    mean, band = (
        {"color": "0.5", "linewidth": 1, "linestyle": "--", "label": "two samples"},
        {"color": "0.88", "linewidth": 0},
    )
    if len(rows) == 1:
        axis.axhspan(rows["low"].item(), rows["high"].item(), **band)
        axis.axhline(rows["mean"].item(), **mean)
    else:
        axis.fill_between(100 * rows["share"], rows["low"], rows["high"], **band)
        axis.plot(100 * rows["share"], rows["mean"], **mean)


def spread(frame: pd.DataFrame, note: str):
    """What the calibration sample does to a model: a panel a ``corpus``, a column a ``method``, a mark a seed, at the
    ``change`` of its log-perplexity from the method's mean over seeds (%). Beside them the standard deviation to both
    sides of 0, with its value and 95 % interval.
    """
    figure, axes = _panels(frame, 1.9)
    methods = list(dict.fromkeys(frame["method"]))
    for corpus, axis in axes.items():
        axis.axhline(0, color="0.5", linestyle=":", linewidth=1)
        for place, method in enumerate(methods):
            change = frame.loc[(frame["corpus"] == corpus) & (frame["method"] == method), "change"]
            details = look_of(method)
            axis.plot([place] * len(change), change, **details, linestyle="none", alpha=0.7)
            sd, low, high = of_spread(change)
            axis.plot([place + 0.15] * 2, [-sd, sd], color=details["color"], linewidth=3, solid_capstyle="butt")
            axis.annotate(f"SD {sd:.1f}\n[{low:.1f}, {high:.1f}]", (place + 0.22, 0), fontsize=7, va="bottom")
        axis.set(xlim=(-0.3, len(methods) - 0.2))
    axis.set_xticks(range(len(methods)), [method.replace(", ", ",\n") for method in methods])
    figure.supylabel("log-perplexity against\nthe mean over samples (%)", fontsize=8, ha="center")
    stamp(figure, note)
    return figure


def steady_and_good(frame: pd.DataFrame, note: str):
    """Each method as a point, a panel a ``corpus``: the part of its removed units that trade places between two
    calibration samples, ``traded`` (``traded_low``, ``traded_high``), and the ``perplexity`` of its model (``low``,
    ``high``), on a logarithmic axis.
    """
    figure, axes = _panels(frame, 1.9)
    for corpus, axis in axes.items():
        for row in frame[frame["corpus"] == corpus].to_dict("records"):
            x, y, details = 100 * row["traded"], row["perplexity"], look_of(row["method"])
            axis.plot([100 * row["traded_low"], 100 * row["traded_high"]], [y, y], color=details["color"], linewidth=1)
            errors = [[y - row["low"]], [row["high"] - y]]
            axis.errorbar(x, y, errors, **details, linestyle="none", elinewidth=1, capsize=2)
        axis.set(yscale="log", ylabel="perplexity")
        _plain_ticks(axis, MaxNLocator(5))
    axis.set_xlabel("units traded between two calibration samples (%)")
    _legend(axis)
    stamp(figure, note)
    return figure


def _panels(frame: pd.DataFrame, height: float):
    """A figure of one column and its axes by corpus, one above the other."""
    corpora = list(dict.fromkeys(frame["corpus"]))
    size = (COLUMN, height * len(corpora) + 0.5)
    figure, axes = plt.subplots(len(corpora), figsize=size, layout="constrained", sharex=True, squeeze=False)
    for axis, corpus in zip(axes[:, 0], corpora):
        axis.set_title(CORPORA.get(corpus, corpus))
    return figure, dict(zip(corpora, axes[:, 0]))


def _legend(axis) -> None:
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2)


def _plain_ticks(axis, locator) -> None:
    axis.yaxis.set(major_locator=locator, major_formatter="{x:g}", minor_locator=NullLocator())


def _from(floor: float, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as :func:`.look.points` takes them, with nothing below ``floor``."""
    frame = frame.rename(columns={"estimate": "mean"})
    return frame.assign(**{name: frame[name].clip(lower=floor) for name in ("mean", "low", "high")})
