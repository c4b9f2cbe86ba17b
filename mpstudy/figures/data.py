"""The figure of the notebook on calibration data; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from .look import COLUMN, CORPORA, dodge, points, stamp

FLOOR = 0.01  # per cent, of a band that reaches zero: a logarithmic axis does not


def over_tokens(stability: pd.DataFrame, quality: pd.DataFrame, band: tuple[float, float] | None, note: str):
    """What more calibration data change: units traded between two samples (top), perplexity (a panel a text below).

    Both frames: ``pruner`` (or a method, as "taylor, mean of 7 scores"), ``length`` of a row in tokens, ``tokens`` of
    the sample, ``estimate``, ``low`` and ``high`` in per cent; ``quality`` also has ``corpus``. Samples of the shortest
    rows are joined by a line; hollow points are means of scores, or stand alone for other rows. ``band``: units that
    the number format trades (low and high, per cent), where it was measured.
    """
    corpora = list(dict.fromkeys(quality["corpus"]))
    size, heights = (COLUMN, 2.4 + 1.3 * len(corpora)), [2.2] + [1.2] * len(corpora)
    layout = {"sharex": True, "layout": "constrained", "height_ratios": heights}
    figure, (top, *below) = plt.subplots(1 + len(corpora), 1, figsize=size, **layout)
    _lines(top, stability)
    top.set(xscale="log", yscale="log", ylabel="removed units traded\nbetween two samples (%)")
    top.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_locator=NullLocator())
    if band:
        top.axhspan(max(band[0], FLOOR), band[1], color="0.6", alpha=0.5, linewidth=0)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 2), "textcoords": "offset points"}
        top.annotate("bf16 against fp16 arithmetic", (0.02, band[1]), fontsize=7, **place)
    for axis, corpus in zip(below, corpora):
        _lines(axis, quality[quality["corpus"] == corpus])
        axis.axhline(0, color="0.5", linestyle=":", linewidth=1)
        axis.set(ylabel="change of perplexity\n(log, %)", title=CORPORA.get(corpus, corpus))
    tokens = sorted(set(stability["tokens"]))
    below[-1].set_xticks(tokens, [_short(count) for count in tokens])
    below[-1].minorticks_off()
    below[-1].set_xlabel("calibration tokens")
    top.legend(loc="best")
    stamp(figure, note)
    return figure


def _lines(axis, frame: pd.DataFrame) -> None:
    methods, shortest = list(dict.fromkeys(frame["pruner"])), frame["length"].min()
    for shift, method in zip(dodge(len(methods), 0.05), methods):
        part = frame[frame["pruner"] == method].rename(columns={"estimate": "mean"})
        pruner, _, special = method.partition(", ")
        for length, rows in part.sort_values("tokens").groupby("length"):
            joined = length == shortest
            label = method if joined else f"{method}, rows of {length:,}"
            options = {"style": "--", "label": label} if special or not joined else {}  # hollow
            places = rows["tokens"] * np.exp(shift if joined else 0.1)
            points(axis, places, rows, pruner, line=joined, **options)


def _short(count: int) -> str:
    return f"{count / 1000:.2g}k" if count >= 1000 else str(count)
