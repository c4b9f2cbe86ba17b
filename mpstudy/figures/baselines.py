"""The figures of unstructured pruning; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from ..pruners import PRUNERS
from ..sparse import METHODS
from ..stats import summarise
from .look import COLUMN, CORPORA, check_registered, dodge, drawn, finished, mark_dense

REFERENCE = "sparsegpt"


def over_sparsity(frame: pd.DataFrame, dense: dict[str, float], note: str):
    """Perplexity over the share of zeros or n:m (``sparsity``, as text), log scale: a panel a ``corpus``, a line a
    ``method``, means and intervals over ``seed`` of log-perplexity. ``dense`` maps a corpus to its dense perplexity.
    """
    frame = frame.assign(log=np.log(frame["perplexity"]))
    corpora, targets, methods = (list(dict.fromkeys(frame[name])) for name in ("corpus", "sparsity", "method"))
    shape = {"figsize": (COLUMN, 1.2 + 1.8 * len(corpora)), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(len(corpora), 1, sharex=True, **shape)
    for axis, corpus in zip(axes[:, 0], corpora):
        for offset, method in zip(dodge(len(methods), 0.07), methods):
            part = frame[(frame["corpus"] == corpus) & (frame["method"] == method)]
            rows = summarise(part, ["sparsity"], "log")
            places = rows["sparsity"].map(targets.index) + offset
            steps = ~rows["sparsity"].str.contains(":")  # n:m stands apart: no line leads to it
            _bars(axis, places, rows, look(method) | {"linestyle": "none", "capsize": 2})
            axis.plot(places[steps], np.exp(rows["mean"][steps]), color=look(method)["color"], linewidth=1)
        mark_dense(axis, dense[corpus])
        axis.set(yscale="log", ylabel="perplexity (log scale)", title=CORPORA.get(corpus, corpus))
        axis.set_xticks(range(len(targets)), [text if ":" in text else f"{float(text):.0%}" for text in targets])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
    axes[-1, 0].set_xlabel("zeros in the pruned layers")
    return finished(figure, axes[0, 0], note)


def error_by_layer(frame: pd.DataFrame, note: str):
    """Reconstruction ``error`` as a ratio to SparseGPT's over ``layer``, log scale: a line a ``method``, the geometric
    mean over the layer's linear layers (``linear``), with the interval over ``seed`` of its logarithm.
    """
    ratios = _ratios(frame)
    methods = [method for method in dict.fromkeys(frame["method"]) if method != REFERENCE]
    figure, axes = plt.subplots(figsize=(COLUMN, 3.3), layout="constrained", squeeze=False)
    axis = axes[0, 0]
    for offset, method in zip(dodge(len(methods), 0.6 / len(methods)), methods):
        rows = summarise(ratios[ratios["method"] == method], ["layer"], "log")
        _bars(axis, rows["layer"] + offset, rows, look(method) | {"linewidth": 0.8, "markersize": 3})
    axis.axhline(1, color="0.3", linestyle=":", linewidth=1)
    axis.set(yscale="log", xlabel="layer", ylabel="squared error of outputs,\nratio to SparseGPT (log scale)")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finished(figure, axes[0, 0], note)


def _bars(axis, places, rows: pd.DataFrame, details: dict) -> None:
    """Means and intervals of logarithms on a log axis."""
    middle, low, high = (np.exp(rows[name].to_numpy()) for name in ("mean", "low", "high"))
    errors = np.nan_to_num([middle - low, high - middle])  # a single seed has no interval
    axis.errorbar(places, middle, yerr=errors, elinewidth=0.8, **details)


def _ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """``log`` of the ratio to SparseGPT's error, the mean over the linear layers of each ``layer``, ``method`` and
    ``seed``. A method that needs no data has one seed, which stands against each of SparseGPT's.
    """
    of_reference = frame.loc[frame["method"] == REFERENCE, ["linear", "seed", "error"]]
    once = frame.groupby("method")["seed"].transform("nunique") == 1
    paired = frame[~once].merge(of_reference, on=["linear", "seed"], suffixes=("", "_reference"))
    alone = frame[once].drop(columns="seed").merge(of_reference, on="linear", suffixes=("", "_reference"))
    both = pd.concat([paired, alone])
    both["log"] = np.log(both["error"] / both["error_reference"])
    return both.groupby(["method", "layer", "seed"], sort=False)["log"].mean().reset_index()


def look(method: str) -> dict:
    """The colour and marker of a method, the same in every figure; white inside when an update follows. Masks by the
    scores of a pruner have the pruner's. A name that is not registered raises :class:`StudyError`.
    """
    base, _, update = method.partition(" + ")
    check_registered([base], METHODS, PRUNERS)
    details = drawn((METHODS if base in METHODS else PRUNERS).look(base)) | {"label": method}
    return details | ({"markerfacecolor": "white"} if update else {})
