"""The figures of unstructured pruning; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from ..pruners import PRUNERS
from ..sparse import METHODS
from ..stats import summarise
from .look import CORPORA, FULL, check_registered, dodge, drawn, mark_dense, stamp

SMALL = {"markersize": 3}


def over_sparsity(frame: pd.DataFrame, dense: dict[str, float], note: str):
    """Perplexity over the share of zeros or n:m (``sparsity``, as text), log scale: a panel a ``corpus``, a line a
    ``method``.
    """
    corpora, targets = (list(dict.fromkeys(frame[name])) for name in ("corpus", "sparsity"))
    figure, axes = plt.subplots(1, len(corpora), figsize=(FULL, 2.8), layout="constrained", sharey=True, squeeze=False)
    methods = list(dict.fromkeys(frame["method"]))
    for axis, corpus in zip(axes[0], corpora):
        for offset, method in zip(dodge(len(methods), 0.07), methods):
            part = frame[(frame["corpus"] == corpus) & (frame["method"] == method)]
            _points(axis, targets, offset, summarise(part, ["sparsity"], "perplexity"), method)
        mark_dense(axis, dense[corpus])
        axis.set(yscale="log", xlabel="zeros in the pruned layers", title=CORPORA.get(corpus, corpus))
        axis.set_xticks(range(len(targets)), [text if ":" in text else f"{float(text):.0%}" for text in targets])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
    axes[0][0].set_ylabel("perplexity (log scale)")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    stamp(figure, note)
    return figure


def _points(axis, targets: list[str], offset: float, rows: pd.DataFrame, method: str) -> None:
    places = rows["sparsity"].map(targets.index) + offset
    errors = np.nan_to_num(np.vstack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])).clip(min=0)
    shares = ~rows["sparsity"].str.contains(":")  # n:m stands apart: no line leads to it
    axis.errorbar(places, rows["mean"], yerr=errors, linestyle="none", elinewidth=1, capsize=2, **look(method))
    axis.plot(places[shares], rows["mean"][shares], color=look(method)["color"], linewidth=1)


def error_by_layer(frame: pd.DataFrame, note: str):
    """Relative reconstruction ``error`` over ``layer``, log scale: a panel for each kind of linear layer, a line a
    ``method``, means over ``seed``.
    """
    frame = frame.assign(kind=frame["linear"].str.rpartition(".")[2])
    kinds, methods = (list(dict.fromkeys(frame[name])) for name in ("kind", "method"))
    columns = -(-len(kinds) // 2)
    shape = {"sharex": True, "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(2, columns, figsize=(FULL, 3.6), **shape)
    apart = max(1, len(methods) // 2)  # markers of lines that lie on each other stand side by side
    for axis, kind in zip(axes.flat, kinds):
        for index, method in enumerate(methods):
            part = frame[(frame["kind"] == kind) & (frame["method"] == method)]
            means = part.groupby("layer")["error"].mean()
            axis.plot(means.index, means, linewidth=1, markevery=(index % apart, apart), **look(method) | SMALL)
        axis.set(yscale="log", title=kind)
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for axis in axes.flat[len(kinds) :]:
        axis.set_axis_off()
    figure.supxlabel("layer", fontsize=8)
    figure.supylabel("relative squared error (log scale)", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    stamp(figure, note)
    return figure


def look(method: str) -> dict:
    """The colour and marker of a method, the same in every figure; white inside when an update follows. Masks by the
    scores of a pruner have the pruner's. A name that is not registered raises :class:`StudyError`.
    """
    base, _, update = method.partition(" + ")
    check_registered([base], METHODS, PRUNERS)
    details = drawn((METHODS if base in METHODS else PRUNERS).look(base)) | {"label": method}
    return details | ({"markerfacecolor": "white"} if update else {})
