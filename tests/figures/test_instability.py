"""The figures of the instability notebook, read from their artists."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import NOTE, check_three_seeds, grid, legend, measured, points, ticks, words

from mpstudy.errors import StudyError
from mpstudy.figures import instability
from mpstudy.figures.instability import LEAST

SEEDS = [0, 1, 2]


def with_bounds(frame):
    return frame.assign(low=0.9 * frame["estimate"], high=1.2 * frame["estimate"])


def test_doses_draws_noise_as_lines_and_formats_as_named_points():
    frame = measured(
        grid(change=["noise-1e-2", "isotropic-1e-1", "noise-1e-3", "int8"], seed=SEEDS), 0.01, 0.02, "traded"
    )
    sizes = {"noise-1e-3": 1e-3, "noise-1e-2": 1e-2, "isotropic-1e-1": 0.1, "int8": 6e-3}
    frame = frame.assign(dose=frame["change"].map(sizes))
    levels = with_bounds(pd.DataFrame([{"method": "taylor", "estimate": 0.5}, {"method": "more", "estimate": 0.3}]))
    (axis,) = (figure := instability.doses(frame, levels, NOTE)).axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log") and words(figure) == [NOTE]
    assert legend(axis) == ["relative noise, σ|w|", "isotropic noise, σ"]
    shown = points(axis)
    assert list(shown["relative noise, σ|w|"].places) == [1e-3, 1e-2] and list(shown["isotropic noise, σ"].places) == [
        0.1
    ]
    noise = frame[frame["change"].str.startswith("noise")].sort_values("dose")
    assert shown["relative noise, σ|w|"].mean == pytest.approx(100 * noise.groupby("dose")["traded"].mean().to_numpy())
    assert words(axis) == ["int8", "another sample (taylor)", "another sample (more)"]
    bands = [sorted({float(y) for _, y in patch.get_path().vertices}) for patch in axis.patches]
    corners = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in axis.patches]
    assert corners == [pytest.approx((45, 60)), pytest.approx((27, 36))] and len(bands) == 2


def test_traded_orders_each_panel_by_the_first_pruner_the_largest_on_top():
    frame = grid(panel=["formats", "data"], change=["a", "b", "c"], pruner=["taylor", "moreau"])
    frame = frame.assign(estimate=np.linspace(0.01, 0.5, len(frame)))
    frame.loc[(frame["panel"] == "data") & (frame["pruner"] == "moreau"), "estimate"] = [0.3, 0.2, 0.1]
    frame.loc[(frame["change"] == "c") & (frame["panel"] == "formats"), "estimate"] = 0
    figure = instability.traded(with_bounds(frame), NOTE)
    first, second = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["formats", "data"] and words(figure) == [NOTE]
    assert ticks(first, "y") == ["b", "a", "c"] and ticks(second, "y") == ["c", "b", "a"]
    assert first.yaxis_inverted() and legend(first) == ["taylor", "moreau"]
    taylor = points(first, across=True)["taylor"]
    assert taylor.places == pytest.approx([0.8, -0.2, 1.8])  # a, b, c as they came
    assert taylor.mean[2] == pytest.approx(100 * LEAST)  # nothing traded stands at the edge
    assert second.get_xlabel() == "removed units that trade places (%)" and second.get_xscale() == "log"


def test_by_method_has_a_panel_a_measure_and_an_open_marker_for_a_variant():
    methods = ["taylor", "taylor, 7 times the data"]
    frame = grid(method=methods, measure=["traded", "kendall_channels"])
    frame = with_bounds(frame.assign(estimate=[0.5, 0.6, 0.3, 0.7]))
    figure = instability.by_method(frame, NOTE)
    assert [axis.get_xlabel() for axis in figure.axes] == ["units traded (%)", "Kendall's tau, channels"]
    assert ticks(figure.axes[0], "y") == methods[::-1] and words(figure) == [NOTE]
    (first, second) = [container.lines[0] for container in figure.axes[0].containers]
    assert (first.get_xdata()[0], first.get_ydata()[0]) == (pytest.approx(50), 1)
    assert (second.get_xdata()[0], second.get_ydata()[0]) == (pytest.approx(30), 0)
    assert first.get_markerfacecolor() != "white" and second.get_markerfacecolor() == "white"
    assert first.get_color() == second.get_color()


def test_sources_are_in_order_of_size():
    frame = measured(grid(source=["bfloat16", "sample of 640 tokens"], seed=SEEDS), 0.1, 0.2, "sd")
    frame.loc[frame["source"] == "bfloat16", "sd"] /= 100
    (axis,) = (figure := instability.sources(frame, NOTE)).axes
    assert ticks(axis, "y") == ["bf16", "sample of 640 tokens"] and axis.get_xscale() == "log"
    (shown,) = points(axis, across=True).values()
    check_three_seeds(shown, frame, "source", "sd", ["bfloat16", "sample of 640 tokens"])
    assert words(figure) == [NOTE]


def test_a_pruner_that_is_none_is_named():
    frame = with_bounds(pd.DataFrame([{"panel": "formats", "change": "a", "pruner": "mine", "estimate": 0.1}]))
    with pytest.raises(StudyError, match="pruner 'mine' is not registered"):
        instability.traded(frame, NOTE)
