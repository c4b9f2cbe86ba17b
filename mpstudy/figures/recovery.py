"""The figures of recovery and of what pruned models cost, in the look of :mod:`mpstudy.figures.look`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ..pruners import PRUNERS
from ..stats import summarise
from .look import COLUMN, CORPORA, bars, check_registered, dodge, look, points, present, stamp

CONTROL = {"color": "0.2", "marker": "x", "markersize": 4, "label": "dense"}
TASKS = {
    "facts": "facts",
    "agreement": "agreement",
    "agreement_far": "agreement\nacross a clause",
    "cloze": "next sentence",
    "cloze_same": "next sentence,\nsame address",
    "order": "order of\ntwo sentences",
    "all": "all items",
}


def over_rows(frame: pd.DataFrame, note: str):
    """How far models lie from the dense one in % of log-perplexity, over the number of instruction ``rows``: a panel a
    ``corpus``, a line a pruner, and the dense model after the same LoRA (``pruner`` "dense") as a dashed line.

    ``frame`` has the ``estimate`` with its ``low`` and ``high``. Rows are places on the axis, not a scale.
    """
    corpora, counts = list(dict.fromkeys(frame["corpus"])), sorted(set(frame["rows"]))
    figure, axes = plt.subplots(
        len(corpora), 1, figsize=(COLUMN, 1.9 * len(corpora)), layout="constrained", sharex=True
    )
    for axis, corpus in zip(np.atleast_1d(axes), corpora):
        part = frame[frame["corpus"] == corpus]
        names = _with_dense(part)
        for offset, pruner in zip(dodge(len(names), 0.08), names):
            rows = part[part["pruner"] == pruner].sort_values("rows")
            details = _details(pruner) | {"linestyle": "--" if pruner == "dense" else "-"}
            places = [counts.index(count) + offset for count in rows["rows"]]
            axis.errorbar(places, rows["estimate"], bars(rows, "estimate"), **details)
        axis.axhline(0, color="0.5", linestyle=":", linewidth=1)
        axis.set(title=CORPORA.get(corpus, corpus), ylabel="above dense\n(% of perplexity, log)")
    last = np.atleast_1d(axes)[-1]
    last.set_xticks(range(len(counts)), [str(count) if count else "none" for count in counts])
    last.set_xlabel("instruction rows of LoRA")
    figure.legend(*last.get_legend_handles_labels(), loc="outside upper center", ncols=3, handletextpad=0.3)
    stamp(figure, note)
    return figure


def accuracy_differences(frame: pd.DataFrame, note: str):
    """Differences of accuracy in points, one axis for all: a panel for what models are compared with (``against``), a
    place a ``task``; hollow before recovery (``rows`` 0), filled after. ``frame`` has ``estimate``, ``low``, ``high``.
    """
    tasks, panels = list(dict.fromkeys(frame["task"])), list(dict.fromkeys(frame["against"]))
    height = 0.9 + len(panels) * (0.3 + 0.38 * len(tasks))
    figure, axes = plt.subplots(len(panels), 1, figsize=(COLUMN, height), layout="constrained", sharex=True)
    for axis, against in zip(np.atleast_1d(axes), panels):
        part = frame[frame["against"] == against]
        series = [(pruner, rows) for pruner in _with_dense(part) for rows in sorted(set(part["rows"]))]
        series = [(p, n) for p, n in series if len(part[(part["pruner"] == p) & (part["rows"] == n)])]
        for offset, (pruner, count) in zip(dodge(len(series), -0.8 / max(len(series), 2)), series):
            rows = part[(part["pruner"] == pruner) & (part["rows"] == count)]
            details = _details(pruner) | {"linestyle": "none"} | ({} if count else {"markerfacecolor": "white"})
            places = [-tasks.index(task) + offset for task in rows["task"]]
            axis.errorbar(rows["estimate"], places, xerr=bars(rows, "estimate"), **details)
        axis.axvline(0, color="0.5", linestyle=":", linewidth=1)
        axis.set_yticks([-place for place in range(len(tasks))], [TASKS.get(task, task) for task in tasks])
        axis.set_title(f"minus {_label(against)}")
    np.atleast_1d(axes)[-1].set_xlabel("difference of accuracy (points)")
    _legend_of_states(figure, frame)
    stamp(figure, note)
    return figure


def recovery_curves(history: pd.DataFrame, note: str):
    """Validation loss over LoRA steps, mean and interval over seeds, a line a pruner."""
    figure, axis = plt.subplots(figsize=(COLUMN, 2.4), layout="constrained")
    measured = history.dropna(subset=["validation_loss"])
    measured = measured.groupby(["pruner", "step", "seed"], sort=False, as_index=False)["validation_loss"].mean()
    pruners = present(measured)
    for offset, pruner in zip(dodge(len(pruners), 0.25), pruners):
        rows = summarise(measured[measured["pruner"] == pruner], ["step"], "validation_loss")
        points(axis, rows["step"] + offset, rows, pruner, line=True)
    axis.set_xlabel("LoRA step")
    axis.set_ylabel("validation loss (nats a token)")
    axis.legend()
    stamp(figure, note)
    return figure


def _with_dense(frame: pd.DataFrame) -> list[str]:
    """The pruners of a frame in the order of the study, the dense model first if it is there."""
    check_registered(set(frame["pruner"]) - {"dense"}, PRUNERS)
    return [name for name in ("dense", *PRUNERS) if name in set(frame["pruner"])]


def _details(pruner: str) -> dict:
    looks = CONTROL if pruner == "dense" else look(pruner)
    return looks | {"linewidth": 1, "elinewidth": 1, "capsize": 2}


def _label(name: str) -> str:
    return _details(name)["label"]


def _legend_of_states(figure, frame: pd.DataFrame) -> None:
    """A mark for each model, and a hollow and a filled one for before and after recovery."""
    state = {"color": "0.4", "marker": "o", "markersize": 4}
    states = [state | {"label": "before LoRA", "markerfacecolor": "white"}, state | {"label": "after LoRA"}]
    looks = [CONTROL if name == "dense" else look(name) for name in _with_dense(frame)]
    marks = [Line2D([], [], linestyle="none", **details) for details in (*looks, *states)]
    figure.legend(handles=marks, loc="outside upper center", ncols=3, handletextpad=0.1)
