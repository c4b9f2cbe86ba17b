"""The figures of recovery and of what pruned models cost, in the look of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from ..stats import summarise
from .look import COLUMN, CORPORA, FULL, dodge, points, present, stamp

COSTS = {"parameters": ("parameters (millions)", 1e-6), "macs": ("multiply-accumulates,\n128 tokens (billions)", 1e-9)}
COSTS |= {"decode_s": ("seconds for 32 tokens", 1)}


def share_over_rows(frame: pd.DataFrame, note: str):
    """``share`` of the lost log-perplexity that comes back, over the number of instruction ``rows``: a panel a
    ``corpus``, a line a pruner.
    """
    corpora = list(dict.fromkeys(frame["corpus"]))
    figure, axes = plt.subplots(1, len(corpora), figsize=(FULL, 2.4), layout="constrained", sharey=True, squeeze=False)
    for axis, corpus in zip(axes[0], corpora):
        part = frame[frame["corpus"] == corpus]
        pruners = present(part)
        for offset, pruner in zip(dodge(len(pruners), 0.06), pruners):
            rows = summarise(part[part["pruner"] == pruner], ["rows"], "share")
            points(axis, rows["rows"] * np.exp(offset), rows, pruner, line=True)
        counts = sorted(set(frame["rows"]))
        axis.set(xscale="log", xlabel="instruction rows", title=CORPORA.get(corpus, corpus))
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.axhline(0, color="0.5", linestyle=":", linewidth=1)
    axes[0][0].set_ylabel("lost log-perplexity\nthat comes back (%)")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    stamp(figure, note)
    return figure


def pareto(frame: pd.DataFrame, dense: pd.Series, note: str):
    """``perplexity`` of pruned models over what they cost, a panel for each of :data:`COSTS`, a line a pruner, a point
    a ratio; the ``dense`` model as a cross. Better models lie lower and to the left.
    """
    figure, axes = plt.subplots(1, len(COSTS), figsize=(FULL, 2.5), layout="constrained", sharey=True)
    for axis, (name, (label, scale)) in zip(axes, COSTS.items()):
        for pruner in present(frame):
            rows = summarise(frame[frame["pruner"] == pruner], [name], "perplexity")
            points(axis, scale * rows[name], rows, pruner, line=True)
        axis.plot(scale * dense[name], dense["perplexity"], "kx", markersize=6, label="dense")
        axis.set(xlabel=label, yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    axes[0].set_ylabel("perplexity")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    stamp(figure, note)
    return figure


def recovery_curves(history: pd.DataFrame, note: str):
    """Validation loss over LoRA steps, mean and interval over seeds, a line a pruner."""
    figure, axis = plt.subplots(figsize=(COLUMN, 2.4), layout="constrained")
    measured = history.dropna(subset=["validation_loss"])
    pruners = present(measured)
    for offset, pruner in zip(dodge(len(pruners), 0.25), pruners):
        rows = summarise(measured[measured["pruner"] == pruner], ["step"], "validation_loss")
        points(axis, rows["step"] + offset, rows, pruner, line=True)
    axis.set_xlabel("LoRA step")
    axis.set_ylabel("validation loss (nats a token)")
    axis.legend()
    stamp(figure, note)
    return figure


def before_after(
    frame: pd.DataFrame, value: str, by: str, label: str, dense: dict, note: str, chance: dict | None = None
):
    """``value`` of the pruned and the recovered models, a panel for each ``by``; dense and chance levels as lines."""
    groups = list(dict.fromkeys(frame[by]))
    figure, axes = plt.subplots(1, len(groups), figsize=(FULL, 2.4), layout="constrained", squeeze=False)
    for axis, group in zip(axes[0], groups):
        part = frame[frame[by] == group]
        pruners = present(part)
        for offset, pruner in zip(dodge(len(pruners), 0.1), pruners):
            rows = summarise(part[part["pruner"] == pruner], ["state"], value)
            rows = rows.set_index("state").loc[["pruned", "recovered"]].reset_index()
            points(axis, np.arange(2) + offset, rows, pruner, line=True)
        for level, name in ((dense[group], "dense"), ((chance or {}).get(group), "chance")):
            if level is not None:
                axis.axhline(level, color="0.4", linestyle=":", linewidth=1)
                axis.annotate(name, (0.5, level), ha="center", va="bottom", fontsize=6.5, color="0.3")
        axis.set_xticks([0, 1], ["pruned", "recovered"])
        axis.set_xlim(-0.4, 1.4)
        axis.set_title(CORPORA.get(group, group))
    axes[0][0].set_ylabel(label)
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    stamp(figure, note)
    return figure
