"""The figures of the envelope's notebook; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from ..stats import summarise
from .look import CORPORA, FULL, dodge, points, present, stamp

_STYLES = {"spectral": "-", "plain": "--"}


def convergence(traces: pd.DataFrame, tolerance: float, note: str):
    """Prox residual over gradients: a panel a radius ``rho``, a colour a length in ``tokens``, a dash a ``solver``."""
    radii, lengths = sorted(set(traces["rho"])), sorted(set(traces["tokens"]))
    colours = dict(zip(lengths, sns.color_palette("colorblind")))
    figure, axes = plt.subplots(1, len(radii), figsize=(FULL, 2.5), layout="constrained", sharey=True, squeeze=False)
    for axis, rho in zip(axes[0], radii):
        for (length, solver, _), part in traces[traces["rho"] == rho].groupby(["tokens", "solver", "seed"], sort=False):
            label, known = f"{solver}, rows of {length} tokens", axis.get_legend_handles_labels()[1]
            look = {"color": colours[length], "linestyle": _STYLES[solver], "linewidth": 1}
            axis.plot(part["gradients"], part["residual"], label=None if label in known else label, **look)
        axis.axhline(tolerance, color="0.5", linestyle=":", linewidth=1)
        axis.set(yscale="log", xlabel="gradients of the calibration loss", title=f"ρ = {rho:g}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("relative prox residual")
    axes[0][-1].legend()
    stamp(figure, note)
    return figure


def lipschitz(frame: pd.DataFrame, note: str):
    """``ratio`` by ``move`` of the weights, pruners side by side, a panel a ``quantity``, the mean ``bound`` a line."""
    order = list(dict.fromkeys(frame["move"]))
    figure, axes = plt.subplots(1, 2, figsize=(FULL, 2.5), layout="constrained")
    labels = {
        "gradient": "‖change of gradient‖₂ /\n‖change of weights‖₂",
        "scores": "‖change of scores‖₁ /\n‖change of weights‖₂",
    }
    for axis, (quantity, label) in zip(axes, labels.items()):
        part = frame[frame["quantity"] == quantity]
        pruners = present(part)
        for offset, pruner in zip(dodge(len(pruners), 0.16), pruners):
            rows = summarise(part[part["pruner"] == pruner], ["move"], "ratio")
            points(axis, np.array([order.index(name) for name in rows["move"]]) + offset, rows, pruner, line=False)
        bound = part.loc[part["pruner"] == "moreau", "bound"].mean()
        axis.axhline(bound, color="0.5", linestyle=":", linewidth=1)
        axis.annotate("bound", (0.99, bound), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6.5)
        axis.set(yscale="log", ylabel=label, xlabel="how the weights move", xlim=(-0.5, len(order) - 0.5))
        axis.set_xticks(range(len(order)), order)
    axes[0].legend(loc="center left")
    stamp(figure, note)
    return figure


def variants(frame: pd.DataFrame, corpora: list[str], chance: float, note: str):
    """Agreement with Taylor (left) and perplexity (right) of each ``variant``, one row each."""
    order = list(dict.fromkeys(frame["variant"]))[::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL, 2.6), layout="constrained", sharey=True)
    colours = sns.color_palette("colorblind")
    columns = {"spearman_taylor": "rank correlation", "jaccard_taylor": "Jaccard index of masks"}
    for axis, names in ((left, columns), (right, {f"perplexity_{c}": CORPORA.get(c, c) for c in corpora})):
        for offset, colour, marker, (column, label) in zip((0.12, -0.12, 0), colours, "oDs", names.items()):
            rows = summarise(frame, ["variant"], column).set_index("variant").loc[order]
            errors = np.nan_to_num(np.vstack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])).clip(min=0)
            look = {
                "color": colour,
                "marker": marker,
                "markersize": 4,
                "linestyle": "none",
                "capsize": 2,
                "label": label,
            }
            axis.errorbar(rows["mean"], np.arange(len(order)) + offset, xerr=errors, **look)
        axis.grid(axis="y", color="0.92")
        axis.legend(loc="best")
    left.axvline(chance, color="0.5", linestyle=":", linewidth=1)
    left.annotate("chance", (chance, 0.99), xycoords=("data", "axes fraction"), va="top", fontsize=6.5, rotation=90)
    left.set_yticks(range(len(order)), order)
    left.set_xlabel("agreement with Taylor")
    right.set_xlabel("perplexity of the pruned model")
    stamp(figure, note)
    return figure
