"""The figures of structured pruning; look and conventions are those of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from ..pruners import PRUNERS
from ..stats import summarise
from .look import CORPORA, FULL, _plain_log_ticks, dodge, mark_dense, points, present, stamp


def over_ratio(frame: pd.DataFrame, dense: dict[str, float], note: str):
    """Perplexity over the pruning ratio, a column a corpus; ``dense`` maps a corpus to its dense value.

    Top: all pruners, log scale. Bottom: the change of those near Taylor against its perplexity, paired by seed.
    """
    corpora = list(dict.fromkeys(frame["corpus"]))
    gaps = _against_taylor(frame)
    shape = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(
        1 + (not gaps.empty), len(corpora), figsize=(FULL, 2.6 + 1.6 * (not gaps.empty)), **shape
    )
    for column, corpus in zip(axes.T, corpora):
        _over_ratio(column[0], frame[frame["corpus"] == corpus], "perplexity")
        mark_dense(column[0], dense[corpus])
        column[0].set_yscale("log")
        column[0].minorticks_off()
        _plain_log_ticks(column[0])
        column[0].set_title(CORPORA.get(corpus, corpus))
        for axis in column[1:]:
            _over_ratio(axis, gaps[gaps["corpus"] == corpus], "change_percent")
            axis.axhline(0, color="0.3", linestyle=":", linewidth=1)
        column[-1].set_xlabel("units removed in each pruned layer")
    for axis, label in zip(axes[:, 0], ("perplexity (log scale)", "change against\nTaylor (%)")):
        axis.set_ylabel(label)
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    stamp(figure, note)
    return figure


def _against_taylor(frame: pd.DataFrame) -> pd.DataFrame:
    """``change_percent`` of perplexity against Taylor's at the same seed, for its registered relatives."""
    pairs = ["seed", "ratio", "corpus"]
    taylor = frame.loc[frame["pruner"] == "taylor", [*pairs, "perplexity"]]
    relatives = [pruner for pruner in present(frame) if PRUNERS[pruner].near_taylor]
    both = frame[frame["pruner"].isin(relatives)].merge(taylor, on=pairs, suffixes=("", "_taylor"))
    return both.assign(change_percent=100 * (both["perplexity"] / both["perplexity_taylor"] - 1))


def _over_ratio(axis, frame: pd.DataFrame, value: str) -> None:
    ratios = sorted(set(frame["ratio"]))
    pruners = present(frame)
    for offset, pruner in zip(dodge(len(pruners), 0.07), pruners):
        rows = summarise(frame[frame["pruner"] == pruner], ["ratio"], value)
        points(axis, rows["ratio"].map(ratios.index) + offset, rows, pruner, line=True)
    axis.set_xticks(range(len(ratios)), [f"{ratio:.0%}" for ratio in ratios])


def by_layer(frame: pd.DataFrame, value: str, label: str, note: str, reference: tuple[float, str] | None = None):
    """``value`` over ``layer``, a panel a unit ``kind``, a line a pruner; ``reference``: a line and its name."""
    kinds = list(dict.fromkeys(frame["kind"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(FULL, 2.4), layout="constrained", sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds):
        part = frame[frame["kind"] == kind]
        for pruner in present(part):
            rows = summarise(part[part["pruner"] == pruner], ["layer"], value)
            points(axis, rows["layer"], rows, pruner, line=True)
        if reference:
            axis.axhline(reference[0], color="0.5", linestyle=":", linewidth=1)
            axis.annotate(
                reference[1], (0.01, reference[0]), xycoords=("axes fraction", "data"), va="bottom", fontsize=6.5
            )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("layer")
        axis.set_title({"mlp": "MLP channels", "attention": "attention heads"}.get(kind, kind))
    axes[0][0].set_ylabel(label)
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    stamp(figure, note)
    return figure


def against_taylor(frame: pd.DataFrame, note: str):
    """Two panels over rho: Jaccard index of Moreau's mask with Taylor's; its perplexity against Taylor's (%)."""
    figure, axes = plt.subplots(1, 2, figsize=(FULL, 2.3), layout="constrained")
    rows = summarise(frame.drop_duplicates(["rho", "seed"]), ["rho"], "jaccard_taylor")
    points(axes[0], rows["rho"], rows, "moreau", line=True)
    axes[0].set_ylabel("Jaccard index with Taylor's mask")
    axes[0].set_ylim(0, 1.03)
    corpora = list(dict.fromkeys(frame["corpus"]))
    for shift, corpus, style in zip(dodge(len(corpora), 0.06), corpora, ("-", "--", ":")):
        rows = summarise(frame[frame["corpus"] == corpus], ["rho"], "change_percent")
        places = rows["rho"] * np.exp(shift)
        points(axes[1], places, rows, "moreau", line=True, style=style, label=CORPORA.get(corpus, corpus))
    axes[1].axhline(0, color="0.5", linestyle=":", linewidth=1)
    axes[1].set_ylabel("perplexity against Taylor (%)")
    axes[1].legend()
    for axis in axes:
        axis.set_xscale("log")
        ticks = sorted(set(frame["rho"]))
        axis.set_xticks(ticks, [f"{rho:g}" for rho in ticks])
        axis.minorticks_off()
        axis.set_xlabel("radius rho of the envelope")
    stamp(figure, note)
    return figure
