"""The study's figures: each function takes a tidy frame and returns a matplotlib figure.

Points are means over seeds, bars the 95 % percentile bootstrap interval of :func:`mpstudy.stats.interval` (with three
seeds that is their range). Every pruner has one colour and one marker everywhere; the palette is safe for colour-blind
readers.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from .errors import StudyError
from .files import write_atomically
from .stats import summarise

COLUMN, FULL = 3.5, 7.1  # inches: one and two columns of a paper
PRUNERS = ("random", "l1", "l2", "taylor", "taylor2", "taylor-mix", "taylor-vector", "smoothgrad")
PRUNERS += ("moreau", "moreau-gs", "moreau-release")
RELATIVES = ("taylor2", "taylor-mix", "taylor-vector", "smoothgrad", "moreau", "moreau-gs")  # compared with taylor
_COLOURS = dict(zip(PRUNERS, np.array(sns.color_palette("colorblind"))[[7, 9, 5, 0, 9, 6, 8, 2, 3, 1, 4]].tolist()))
_MARKERS = dict(zip(PRUNERS, "xv^o<>pDsPX"))
CORPORA = {"sotu-late": "addresses since 1946", "wiki": "Wikipedia", "novel": "novel"}


def theme() -> None:
    """Fonts and lines that stay readable at column width."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    sizes = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}
    plt.rcParams.update(sizes | {"legend.fontsize": 7, "figure.dpi": 150, "savefig.dpi": 220, "pdf.fonttype": 42})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})


def save(figure, data, path: Path, caption: str) -> None:
    """Write ``path`` as .pdf, .png, .csv (the numbers drawn) and .txt (the caption)."""
    for suffix, options in ((".pdf", {"metadata": {"CreationDate": None}}), (".png", {})):
        figure.savefig(path.with_name(path.name + suffix), bbox_inches="tight", **options)
    pd.DataFrame(data).to_csv(path.with_name(path.name + ".csv"), index=False)
    write_atomically(path.with_name(path.name + ".txt"), caption + "\n")


def stamp(figure, text: str) -> None:
    """The profile, model and n under the figure."""
    figure.text(0.995, -0.01, text, ha="right", va="top", fontsize=6, color="0.45")


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


def mark_dense(axis, value: float) -> None:
    """A dotted line at the value of the dense model, named at its right end."""
    axis.axhline(value, color="0.3", linestyle=":", linewidth=1)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 1), "textcoords": "offset points"}
    axis.annotate("dense", (0.99, value), ha="right", va="bottom", fontsize=6.5, **place)


def _against_taylor(frame: pd.DataFrame) -> pd.DataFrame:
    """``change_percent`` of perplexity against Taylor's at the same seed, for Taylor's and Moreau's relatives."""
    pairs = ["seed", "ratio", "corpus"]
    taylor = frame.loc[frame["pruner"] == "taylor", [*pairs, "perplexity"]]
    both = frame[frame["pruner"].isin(RELATIVES)].merge(taylor, on=pairs, suffixes=("", "_taylor"))
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


def points(axis, places, rows, pruner, *, line, style="-", label=None, across=False):
    """Means with their intervals; ``across``: places along y, values along x."""
    errors = np.vstack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
    errors = np.nan_to_num(errors).clip(min=0)  # a single seed has no interval
    details = look(pruner) | {"linewidth": 1, "elinewidth": 1, "linestyle": style if line else "none", "capsize": 2}
    details |= {"label": label or pruner, "markerfacecolor": "white" if style == "--" else _COLOURS[pruner]}
    if across:
        axis.errorbar(rows["mean"], places, xerr=errors, **details)
    else:
        axis.errorbar(places, rows["mean"], yerr=errors, **details)


def look(pruner: str) -> dict:
    """The colour and the marker of a pruner, the same in every figure."""
    return {"color": _COLOURS[pruner], "marker": _MARKERS[pruner], "markersize": 4, "label": pruner}


def present(frame: pd.DataFrame) -> list[str]:
    """The pruners of a frame in the order of the study."""
    unknown = set(frame["pruner"]) - set(PRUNERS)
    if unknown:
        raise StudyError(f"no colour for pruner {', '.join(sorted(unknown))}; add it to PRUNERS in mpstudy/plots.py")
    return [pruner for pruner in PRUNERS if pruner in set(frame["pruner"])]


def dodge(count: int, step: float) -> np.ndarray:
    """Offsets that keep ``count`` points at one place apart."""
    return (np.arange(count) - (count - 1) / 2) * step


def label_of(change: str) -> str:
    """The name of a change as a tick label of up to two lines."""
    known = {"bfloat16": "bf16", "float16": "fp16", "float8": "fp8", "sample": "other\nsample", "tuned": "LoRA\nupdate"}
    known |= {"bfloat16-arithmetic": "bf16\narithmetic", "float16-arithmetic": "fp16\narithmetic"}
    return known.get(change, change.replace("-", "\n", 1))


def _plain_log_ticks(axis) -> None:
    low, high = axis.get_ylim()
    leading = (1, 3) if high > 100 * low else (1, 1.5, 2, 3, 5, 7)
    steps = [step * 10**power for power in range(1, 6) for step in leading]
    ticks = [tick for tick in steps if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
