"""The figures of the instability notebooks; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..stability.changes import Change
from ..stability.perturb import PERTURBATIONS
from ..stats import summarise
from .look import COLUMN, CORPORA, FULL, dodge, look, points, present, stamp


def dose_response(frame: pd.DataFrame, note: str):
    """Jaccard index over the relative size of the change of the weights, ``dose``: a panel a ``kind`` of noise, a line
    a pruner; a dotted line where two random masks lie (``chance``).
    """
    kinds = [kind for kind, facts in PERTURBATIONS.items() if facts.panel and kind in set(frame["kind"])]
    figure, axes = plt.subplots(1, len(kinds), figsize=(FULL, 2.5), layout="constrained", sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds):
        part = frame[frame["kind"] == kind]
        for pruner in present(part):
            rows = summarise(part[part["pruner"] == pruner], ["dose"], "jaccard")
            points(axis, rows["dose"], rows, pruner, line=True)
        title = PERTURBATIONS[kind].panel
        axis.set(xscale="log", xlabel="‖change of weights‖ / ‖weights‖", title=title, ylim=(0, 1.03))
        axis.axhline(part["chance"].mean(), color="0.5", linestyle=":", linewidth=1)
    axes[0][0].annotate(
        "two random masks", (0.02, frame["chance"].mean() + 0.015), xycoords=("axes fraction", "data"), fontsize=6.5
    )
    axes[0][0].set_ylabel("Jaccard index of the two masks")
    axes[0][0].legend(loc="center left")
    stamp(figure, note)
    return figure


def by_change(frame: pd.DataFrame, note: str):
    """Jaccard index by ``change`` (one row each, the least stable last), pruners side by side, and chance as a line."""
    order = frame.groupby("change", sort=False)["jaccard"].mean().sort_values().index.tolist()
    figure, axis = plt.subplots(figsize=(FULL, 0.8 + 0.27 * len(order)), layout="constrained")
    pruners = present(frame)
    for offset, pruner in zip(np.linspace(0.3, -0.3, len(pruners)), pruners):
        rows = summarise(frame[frame["pruner"] == pruner], ["change"], "jaccard")
        places = np.array([order.index(name) for name in rows["change"]]) + offset
        points(axis, places, rows, pruner, line=False, across=True)
    axis.axvline(frame["chance"].mean(), color="0.5", linestyle=":", linewidth=1)
    axis.annotate(
        "two random masks",
        (frame["chance"].mean(), 0.99),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        va="top",
        fontsize=6.5,
    )
    axis.set_yticks(range(len(order)), [Change.parse(name).label.replace("\n", " ") for name in order])
    axis.set(xlabel="Jaccard index of the masks before and after the change", xlim=(0, 1.03))
    axis.grid(axis="y", color="0.92")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    stamp(figure, note)
    return figure


def over_ratio(frame: pd.DataFrame, note: str):
    """Chance-corrected overlap over the pruning ratio: a panel a ``change``, a line a pruner."""
    changes = list(dict.fromkeys(frame["change"]))
    figure, axes = plt.subplots(1, len(changes), figsize=(FULL, 2.4), layout="constrained", sharey=True, squeeze=False)
    for axis, change in zip(axes[0], changes):
        part = frame[frame["change"] == change]
        pruners = present(part)
        for offset, pruner in zip(dodge(len(pruners), 0.6), pruners):  # percent, so that intervals do not overlap
            rows = summarise(part[part["pruner"] == pruner], ["ratio"], "corrected")
            points(axis, 100 * rows["ratio"] + offset, rows, pruner, line=True)
        axis.axhline(0, color="0.5", linestyle=":", linewidth=1)
        axis.set(xlabel="units removed (%)", title=Change.parse(change).label.replace("\n", " "))
    axes[0][0].set_ylabel("overlap of masks,\nchance-corrected")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    stamp(figure, note)
    return figure


def variance_shares(frame: pd.DataFrame, note: str):
    """``share`` of the variance of log scores by ``source`` with ``low`` and ``high``, pruners side by side."""
    order = list(dict.fromkeys(frame["source"]))[::-1]
    figure, axis = plt.subplots(figsize=(COLUMN, 2.3), layout="constrained")
    pruners = present(frame)
    for offset, pruner in zip(np.linspace(0.15, -0.15, len(pruners)), pruners):
        rows = frame[frame["pruner"] == pruner].rename(columns={"share": "mean"})
        rows = rows.assign(**{name: 100 * rows[name] for name in ("mean", "low", "high")})
        places = np.array([order.index(name) for name in rows["source"]]) + offset
        points(axis, places, rows, pruner, line=False, across=True)
    axis.set_yticks(range(len(order)), order)
    axis.set(xlabel="share of the variance of log scores (%)", xlim=(-3, 103))
    axis.grid(axis="y", color="0.92")
    axis.legend(loc="lower right")
    stamp(figure, note)
    return figure


def stability_and_quality(frame: pd.DataFrame, note: str):
    """Each pair of masks as a point: their agreement against the divergence of the two pruned models (left) and against
    the change of perplexity (right).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL, 2.6), layout="constrained", sharex=True)
    for pruner in present(frame):
        part = frame[frame["pruner"] == pruner]
        for axis, column in ((left, "kl"), (right, "change_percent")):
            dots = look(pruner) | {"linestyle": "none", "markersize": 3.5, "markeredgewidth": 0, "alpha": 0.7}
            axis.plot(part["jaccard"], part[column], **dots)
    left.set(yscale="log", ylabel="divergence of the two\npruned models (nats per token)")
    right.set_ylabel("change of perplexity (%)")
    right.axhline(0, color="0.5", linestyle=":", linewidth=1)
    for axis in (left, right):
        axis.set_xlabel("Jaccard index of the two masks")
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    stamp(figure, note)
    return figure


def steady_and_good(frame: pd.DataFrame, corpora: list[str], note: str):
    """Each pruner as a point: ``jaccard`` with its mask from another calibration sample, and its perplexity."""
    figure, axes = plt.subplots(1, len(corpora), figsize=(FULL, 2.5), layout="constrained", squeeze=False)
    for axis, corpus in zip(axes[0], corpora):
        for pruner in present(frame):
            row = frame[frame["pruner"] == pruner]
            axis.plot(row["jaccard"], row[f"perplexity_{corpus}"], linestyle="none", **look(pruner))
        axis.set(xlabel="Jaccard index under another calibration sample", title=CORPORA.get(corpus, corpus))
    axes[0][0].set_ylabel("perplexity of the pruned model")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    stamp(figure, note)
    return figure
