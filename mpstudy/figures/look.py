"""The study's figures: each function takes a tidy frame and returns a matplotlib figure.

Points are means over seeds, bars the 95 % Student interval of :func:`mpstudy.stats.interval`. Every pruner has one
colour and one marker everywhere, those of its registration; the palette is safe for colour-blind readers.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..errors import StudyError
from ..pruners import PRUNERS
from ..registry import Look, Registry
from ..store.files import write_atomically

COLUMN, FULL = 3.5, 7.1  # inches: one and two columns of a paper
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


def mark_dense(axis, value: float) -> None:
    """A dotted line at the value of the dense model, named at its right end."""
    axis.axhline(value, color="0.3", linestyle=":", linewidth=1)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 1), "textcoords": "offset points"}
    axis.annotate("dense", (0.99, value), ha="right", va="bottom", fontsize=6.5, **place)


def points(axis, places, rows, pruner, *, line, style="-", label=None, across=False):
    """Means with their intervals; ``across``: places along y, values along x."""
    errors = bars(rows)
    details = look(pruner) | {"linewidth": 1, "elinewidth": 1, "linestyle": style if line else "none", "capsize": 2}
    details |= {"label": label} if label else {}
    details |= {"markerfacecolor": "white"} if style == "--" else {}
    if across:
        axis.errorbar(rows["mean"], places, xerr=errors, **details)
    else:
        axis.errorbar(places, rows["mean"], yerr=errors, **details)


def bars(rows: pd.DataFrame, middle: str = "mean") -> np.ndarray:
    """Lengths of the error bars below and above the column ``middle``, (2, rows), from ``low`` and ``high``; none where
    there is no interval, as for a single seed.
    """
    lengths = np.vstack([rows[middle] - rows["low"], rows["high"] - rows[middle]]).astype(float)
    return np.nan_to_num(lengths).clip(min=0)


def finished(figure, axis, note: str):
    """The figure with the legend of ``axis`` above it and the stamp below."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, handletextpad=0.3, columnspacing=1)
    stamp(figure, note)
    return figure


def look(pruner: str) -> dict:
    """The colour, the marker and the label of a pruner, the same in every figure."""
    return drawn(PRUNERS.look(pruner))


def look_of(method: str) -> dict:
    """The look of a method: that of its pruner, with white markers for a name such as "taylor, 7 times the data", and
    half white ones for a mean, "taylor, mean of 7 scores".
    """
    pruner, _, special = method.partition(", ")
    check_registered([pruner], PRUNERS)
    half = {"fillstyle": "left", "markerfacecoloralt": "white"}
    inside = half if special.startswith("mean of") else {"markerfacecolor": "white"}
    return look(pruner) | {"label": method} | (inside if special else {})


def drawn(look: Look) -> dict:
    """A look in matplotlib's words."""
    return {"color": look.colour, "marker": look.marker, "markersize": 4, "label": look.label}


def present(frame: pd.DataFrame) -> list[str]:
    """The pruners of a frame in the order of the study; one that is not registered raises :class:`StudyError`."""
    check_registered(frame["pruner"], PRUNERS)
    return [pruner for pruner in PRUNERS if pruner in set(frame["pruner"])]


def check_registered(names: Iterable[str], *registries: Registry) -> None:
    """:class:`StudyError` for names that none of the registries has."""
    kind = registries[0].kind
    for name in names:
        if not any(name in registry for registry in registries):
            raise StudyError(
                f"{kind} {name!r} is not registered, so it has no look; register it in the package (CONTRIBUTING.md, "
                f'"Adding a {kind}"), or here before drawing'
            )


def dodge(count: int, step: float) -> np.ndarray:
    """Offsets that keep ``count`` points at one place apart."""
    return (np.arange(count) - (count - 1) / 2) * step
