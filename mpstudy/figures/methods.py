"""The figures of structured methods and repairs; look and conventions are those of :mod:`mpstudy.figures.look`.

A *pipeline* is a method, or a method and a repair behind " + ": drawn like the method, white inside where it is
repaired.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from ..blocks.registry import BLOCK_PRUNERS
from ..pruners import PRUNERS
from ..registry import Look
from ..stats import summarise
from .look import COLUMN, CORPORA, bars, check_registered, dodge, drawn, finished

TEXTS = CORPORA | {"sotu-early": "addresses before 1946"}
OF_TEXTS = dict(zip(TEXTS, (("#0173b2", "o"), ("#de8f05", "s"), ("#029e73", "^"), ("#cc78bc", "D"))))
SLICED = Look("slicegpt", "#661100", "X")


def against_taylor(frame: pd.DataFrame, note: str):
    """Change of log-perplexity against Taylor's, ``estimate`` with ``low`` and ``high`` (% of perplexity, log): a line
    of the figure a ``pipeline``, a mark a ``corpus``. What is off the scale by an order of magnitude stretches it, so
    the axis is linear within 100 % and logarithmic beyond.
    """
    pipelines, corpora = (list(dict.fromkeys(frame[name])) for name in ("pipeline", "corpus"))
    figure, axis = plt.subplots(figsize=(COLUMN, 1.3 + 0.27 * len(pipelines)), layout="constrained")
    for offset, corpus in zip(dodge(len(corpora), 0.22), corpora):
        rows = frame[frame["corpus"] == corpus].rename(columns={"estimate": "mean"})
        colour, marker = OF_TEXTS.get(corpus, ("0.4", "v"))
        places = rows["pipeline"].map(pipelines.index) + offset
        look = {"color": colour, "marker": marker, "markersize": 3, "label": TEXTS.get(corpus, corpus)}
        axis.errorbar(rows["mean"], places, xerr=bars(rows), linestyle="none", elinewidth=1, capsize=1.5, **look)
    axis.axvline(0, color="0.3", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(pipelines)), pipelines)
    axis.set(xlabel="change against Taylor (% of perplexity, log)", ylim=(len(pipelines) - 0.4, -0.6))
    if frame["high"].max() > 100 or frame["low"].min() < -100:
        axis.set_xscale("symlog", linthresh=100, linscale=2)
        ticks = [each for each in (-400, -200, -100, -50, 0, 50, 100, 200, 400, 800) if _within(axis, each)]
        axis.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(axis="y", color="0.92", linewidth=0.5)
    return finished(figure, axis, note)


def pareto(frame: pd.DataFrame, note: str):
    """Log-perplexity above the dense model's, ``estimate`` with ``low`` and ``high`` (% of perplexity, log), over the
    measured ``speedup`` of each ``pipeline``; a line joins those that no other beats in both.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 4.2), layout="constrained")
    for row in frame.to_dict("records"):
        one = pd.DataFrame([row]).rename(columns={"estimate": "mean"})
        axis.errorbar(row["speedup"], row["estimate"], yerr=bars(one), elinewidth=1, capsize=2, **look(row["pipeline"]))
    front = frontier(frame)
    axis.plot(front["speedup"], front["estimate"], color="0.6", linewidth=1, zorder=0)
    axis.axvline(1, color="0.3", linestyle=":", linewidth=1)
    axis.set(
        xlabel="speed, times the dense model's", ylabel="log-perplexity above\nthe dense model's (%)", yscale="log"
    )
    axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_locator=NullLocator())
    return finished(figure, axis, note)


def frontier(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other beats both in ``speedup`` and in ``estimate``, from the fastest on."""
    rows = frame.sort_values(["speedup", "estimate"], ascending=[False, True])
    return rows[rows["estimate"] < rows["estimate"].cummin().shift(fill_value=np.inf)]


def over_strength(frame: pd.DataFrame, note: str):
    """Log-perplexity ``nll`` (nats per token) over the ``strength`` of a repair, log scale: a line for each number of
    calibration ``samples``, the mean over ``seed``, each of which is a dot.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 2.9), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0.1, 0.8, frame["samples"].nunique()))
    for colour, (count, part) in zip(colours, frame.groupby("samples")):
        means = summarise(part, ["strength"], "nll").sort_values("strength")
        axis.plot(part["strength"], part["nll"], ".", color=colour, markersize=3, alpha=0.6)
        axis.plot(means["strength"], means["mean"], color=colour, linewidth=1, label=f"{count} samples")
    axis.set(xscale="log", xlabel="strength of the ridge (of the mean diagonal)", ylabel="nats per token")
    axis.xaxis.set(major_formatter="{x:g}", minor_locator=NullLocator())
    return finished(figure, axis, note)


def look(pipeline: str) -> dict:
    """The colour, the marker and the label of a pipeline."""
    method, _, repair = pipeline.partition(" + ")
    if method == SLICED.label:
        details = drawn(SLICED)
    else:
        check_registered([method], BLOCK_PRUNERS, PRUNERS)
        details = drawn((BLOCK_PRUNERS if method in BLOCK_PRUNERS else PRUNERS).look(method))
    return details | {"label": pipeline} | ({"markerfacecolor": "white"} if repair else {})


def _within(axis, value: float) -> bool:
    low, high = axis.get_xlim()
    return low <= value <= high
