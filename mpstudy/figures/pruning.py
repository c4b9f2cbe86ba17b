"""The figures of structured pruning; look and conventions are those of :mod:`mpstudy.figures.look`.

A method is named by its pruner and, after a comma, what is special about it, such as ``taylor, 7 times the data``: it
has the look of the pruner, white inside where something is special (:func:`mpstudy.figures.look.look_of`).
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from ..stats import summarise
from .look import COLUMN, CORPORA, dodge, finished, look_of


def against_taylor(frame: pd.DataFrame, note: str):
    """Change of log-perplexity against Taylor's, ``estimate`` with ``low`` and ``high`` (% of perplexity, log), over
    the ``share`` removed: a panel a ``corpus``, a point a ``method``.
    """
    corpora, methods, shares = (list(dict.fromkeys(frame[name])) for name in ("corpus", "method", "share"))
    figure, axes = _panels(len(corpora), 1, 0.6 + 1.6 * len(corpora), sharex=True)
    for axis, corpus in zip(axes[:, 0], corpora):
        for offset, method in zip(dodge(len(methods), 0.8 / len(methods)), methods):
            part = frame[(frame["corpus"] == corpus) & (frame["method"] == method)]
            places = [shares.index(share) + offset for share in part["share"]]
            _bars(axis, places, part["estimate"], part["low"], part["high"], method)
        axis.axhline(0, color="0.3", linestyle=":", linewidth=1)
        axis.set(title=CORPORA.get(corpus, corpus), ylabel="change against\nTaylor (%, log)")
        axis.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
        axis.set_xlim(-0.8, len(shares) - 0.2)
    axes[-1, 0].set_xlabel("parameters removed of the pruned layers")
    return finished(figure, axes[0, 0], note)


def over_compute(frame: pd.DataFrame, note: str):
    """Log-perplexity ``nll`` (nats per token) over the ``gradients`` that a ``method``'s scores took, in whole ones: a
    panel a ``corpus``, methods of one cost side by side. Bars are intervals over ``seed``: all methods are measured on
    the same text.
    """
    corpora, methods = (list(dict.fromkeys(frame[name])) for name in ("corpus", "method"))
    costs = frame.groupby("method", sort=False)["gradients"].mean().round().astype(int)
    groups = {cost: [method for method in methods if costs[method] == cost] for cost in sorted(set(costs))}
    step = 0.8 / max(map(len, groups.values()))
    figure, axes = _panels(1, len(corpora), 2.9)
    for axis, corpus in zip(axes[0], corpora):
        for place, of_cost in enumerate(groups.values()):
            for offset, method in zip(dodge(len(of_cost), step), of_cost):
                part = frame[(frame["corpus"] == corpus) & (frame["method"] == method)]
                (row,) = summarise(part, ["method"], "nll").itertuples()
                _bars(axis, [place + offset], [row.mean], [row.low], [row.high], method)
        axis.set(title=CORPORA.get(corpus, corpus), xlim=(-0.6, len(groups) - 0.4))
        axis.set_xticks(range(len(groups)), groups)
    axes[0, 0].set_ylabel("log-perplexity (nats per token)")
    figure.supxlabel("gradients of the calibration sample, rounded", fontsize=8)
    return finished(figure, axes[0, 0], note)


def by_layer(frame: pd.DataFrame, note: str):
    """Agreement of a ``method``'s channels with Taylor's, ``jaccard_taylor``, over ``layer``, means over ``seed``; a
    dotted line where two random masks lie (``chance``).
    """
    figure, axes = _panels(1, 1, 2.9)
    axis = axes[0, 0]
    for method, part in frame.groupby("method", sort=False):
        means = part.groupby("layer")["jaccard_taylor"].mean()
        axis.plot(means.index, means, linewidth=1, **look_of(method) | {"markersize": 3})
    chance = frame["chance"].mean()
    axis.axhline(chance, color="0.3", linestyle=":", linewidth=1)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 1), "textcoords": "offset points"}
    axis.annotate("two random masks", (0.99, chance), ha="right", va="bottom", fontsize=7, **place)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="layer", ylabel="Jaccard index with Taylor's\nremoved channels", ylim=(0, 1.03))
    return finished(figure, axes[0, 0], note)


def _panels(rows: int, columns: int, height: float, **shared):
    """A figure of one column of a paper, with room for a legend below."""
    shape = {"figsize": (COLUMN, height + 0.6), "layout": "constrained", "squeeze": False}
    return plt.subplots(rows, columns, **shape, **shared)


def _bars(axis, places, values, low, high, method: str) -> None:
    errors = np.nan_to_num(np.abs(np.array([low, high]) - np.array(values)))  # a single seed has no interval
    axis.errorbar(places, values, yerr=errors, linestyle="none", elinewidth=1, capsize=2, **look_of(method))
