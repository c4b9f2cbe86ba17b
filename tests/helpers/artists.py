"""What a figure shows, read from its artists, and small frames to draw."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

NOTE = "tiny profile · n = 3 seeds"


@dataclass(frozen=True)
class Points:
    """Means with intervals: places along one axis, ``mean``, ``low`` and ``high`` along the other."""

    places: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    look: tuple[str, str]  # colour, marker
    face: str
    style: str


def points(axis, across: bool = False) -> dict[str, Points]:
    """The error bars of an axis by label, in the order of drawing; ``across``: values run along x."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        places, mean = np.array(line.get_xdata()), np.array(line.get_ydata())
        along = 0 if across else 1
        low, high = np.array([sorted(segment[:, along]) for segment in bars.get_segments()]).T
        if across:
            places, mean = mean, places
        look = (to_hex(line.get_color()), line.get_marker())
        style = (to_hex(line.get_markerfacecolor()), line.get_linestyle())
        found[container.get_label()] = Points(places, mean, low, high, look, *style)
    return found


def curves(axis) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """x and y of the labelled lines of an axis that are not error bars."""
    lines = [line for line in axis.lines if not line.get_label().startswith("_")]
    return {line.get_label(): (np.array(line.get_xdata()), np.array(line.get_ydata())) for line in lines}


def levels(axis, across: bool = False) -> list[float]:
    """Where the dotted lines through the whole axis lie, on y, or with ``across`` on x."""
    ends = [(line.get_xdata(), line.get_ydata()) for line in axis.lines if line.get_linestyle() == ":"]
    through, value = (1, 0) if across else (0, 1)
    return [float(pair[value][0]) for pair in ends if list(pair[through]) == [0, 1]]


def legend(axis) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def legend_below(figure) -> list[str]:
    """The legend of the whole figure."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def ticks(axis, which: str = "x") -> list[str]:
    return [label.get_text() for label in getattr(axis, f"get_{which}ticklabels")()]


def words(thing) -> list[str]:
    """The texts that stand freely in a figure or an axis."""
    return [text.get_text() for text in thing.texts]


def grid(**columns) -> pd.DataFrame:
    """A row for each combination of values."""
    return pd.DataFrame([dict(zip(columns, case)) for case in product(*columns.values())])


def measured(frame: pd.DataFrame, low: float, high: float, *columns: str) -> pd.DataFrame:
    """The frame with columns of numbers between ``low`` and ``high``, no two alike."""
    rng = np.random.default_rng(len(frame))
    return frame.assign(**{name: rng.uniform(low, high, len(frame)) for name in columns})


def check_three_seeds(shown: Points, frame: pd.DataFrame, by: str, value: str, order=None, scale: float = 1) -> None:
    """The points are the means over three seeds in the ``order`` of ``by``, the bars Student's interval."""
    groups = frame.groupby(by, sort=False)[value]
    assert (groups.count() == 3).all()
    order = list(groups.groups) if order is None else order
    mean, half = (scale * groups.agg(measure).loc[order].to_numpy() for measure in ("mean", "sem"))
    half = 4.302652729911275 * half  # the 97.5 % point of t with 2 degrees of freedom
    for drawn, expected in ((shown.mean, mean), (shown.low, mean - half), (shown.high, mean + half)):
        assert drawn == pytest.approx(expected)
