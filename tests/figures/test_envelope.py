"""The figures of the envelope's notebook, read from their artists."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import NOTE, grid, legend, levels, measured, points, ticks, words

from mpstudy.figures import envelope


def estimates(cases: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    frame = measured(cases, low, high, "estimate")
    return frame.assign(low=frame["estimate"] - 0.1, high=frame["estimate"] + 0.2)


def check_drawn(shown, part: pd.DataFrame) -> None:
    for drawn, column in ((shown.mean, "estimate"), (shown.low, "low"), (shown.high, "high")):
        assert drawn == pytest.approx(part[column].to_numpy())


def test_convergence_is_a_line_a_case_and_a_name_a_radius():
    cases = pd.concat([
        grid(rho=[0.2, 0.02], tokens=[64], solver=["spectral"], seed=[0, 1]),
        grid(rho=[0.02], tokens=[64], solver=["plain"], seed=[0]),
        grid(rho=[0.02], tokens=[128], solver=["spectral"], seed=[0]),
    ], ignore_index=True)  # fmt: skip
    traces = measured(cases.merge(grid(gradients=range(2, 6)), how="cross"), 1e-3, 1, "residual")
    (axis,) = (figure := envelope.convergence(traces, [0.1, 0.01], NOTE)).axes
    assert axis.get_yscale() == "log" and axis.get_xlabel() == "gradients of the calibration loss"
    assert axis.get_ylabel() == "relative prox residual" and words(figure) == [NOTE]
    assert levels(axis) == [0.1, 0.01] and words(axis) == ["0.1", "0.01"]
    assert legend(axis) == ["ρ = 0.02", "ρ = 0.2", "spectral", "plain", "rows of 128"]
    colours = dict(zip((0.02, 0.2), (line.get_color() for line in axis.get_legend().get_lines())))
    lines = [line for line in axis.lines if line.get_linestyle() != ":"]
    for line, case in zip(lines, cases.to_dict("records"), strict=True):
        part = traces[(traces[list(case)] == list(case.values())).all(axis=1)]
        assert list(line.get_xdata()) == [2, 3, 4, 5] and list(line.get_ydata()) == list(part["residual"])
        assert line.get_linestyle() == {"spectral": "-", "plain": "--"}[case["solver"]]
        assert line.get_linewidth() == {64: 1, 128: 2}[case["tokens"]] and line.get_color() == colours[case["rho"]]


def test_over_steps():
    names = ["solved mask", "Taylor's mask", "another sample's mask"]
    frame = estimates(grid(step=[1, 5, 25], measure=names), 0.2, 0.8)
    (axis,) = (figure := envelope.over_steps(frame, NOTE)).axes
    assert axis.get_ylabel() == "Jaccard index of channels" and axis.get_xlabel() == "steps of the prox solver"
    assert ticks(axis) == ["1", "5", "25"] and legend(axis) == names and words(figure) == [NOTE]
    for name, shown in points(axis).items():
        assert list(shown.places) == [1, 5, 25]
        check_drawn(shown, frame[frame["measure"] == name])


def test_over_radius_beside_taylor():
    frame = estimates(grid(rho=[0.01, 0.1]), 30, 40)
    taylor = pd.DataFrame([{"rho": 0, "estimate": 41.0, "low": 39.0, "high": 43.0}])
    (axis,) = (figure := envelope.over_radius(pd.concat([taylor, frame]), NOTE)).axes
    assert axis.get_xscale() == "log" and ticks(axis) == ["0.01", "0.1"] and words(figure) == [NOTE]
    assert legend(axis) == ["taylor", "moreau"]
    (band,) = axis.patches
    assert (band.get_y(), band.get_height()) == (39, 4)
    check_drawn(points(axis)["moreau"], frame)


def test_periods_are_a_line_a_seed_under_their_limit():
    frame = measured(grid(panel=["theirs", "ours"], seed=[0, 1], step=[0, 1, 2]), 0, 1, "loss", "norm")
    frame = frame[(frame["panel"] == "ours") | (frame["seed"] == 0)]
    frame = frame.assign(limit=frame["panel"].map({"theirs": 1.5, "ours": 2.5}))
    axes = (figure := envelope.periods(frame, NOTE)).axes
    assert [axis.get_title() for axis in axes[:2]] == ["theirs", "ours"] and words(figure) == [NOTE]
    assert [axes[0].get_ylabel(), axes[2].get_ylabel()] == ["loss (nats)", "norm of the offset"]
    assert [levels(axis) for axis in axes[2:]] == [[1.5], [2.5]] and words(axes[2]) == ["soft · √N"]
    for axis, (column, panel) in zip(axes, grid(column=["loss", "norm"], panel=["theirs", "ours"]).to_numpy()):
        drawn = [list(line.get_ydata()) for line in axis.lines if line.get_linestyle() == "-"]
        part = frame[frame["panel"] == panel]
        assert drawn == [list(rows[column]) for _, rows in part.groupby("seed")]


def test_variants_from_the_top_down():
    names = ["taylor", "smoothgrad", "release"]
    agreement = estimates(grid(variant=names, measure=["tau", "Jaccard"]), 0, 1)
    quality = estimates(grid(variant=names[1:], measure=["Wikipedia"]), -5, 5)
    top, below = (figure := envelope.variants(agreement, quality, 0.11, NOTE)).axes
    assert ticks(top, "y") == names[::-1] and ticks(below, "y") == names[:0:-1] and words(figure) == [NOTE]
    assert top.get_xlabel() == "agreement with Taylor"
    assert below.get_xlabel() == "perplexity against Taylor (log, %)"
    assert levels(top, across=True) == [0.11] and words(top) == ["chance"] and levels(below, across=True) == [0]
    assert legend(top) == ["tau", "Jaccard"] and legend(below) == ["Wikipedia"]
    for axis, frame in ((top, agreement), (below, quality)):
        for offset, (name, shown) in zip((0.15, -0.15), points(axis, across=True).items()):
            part = frame[frame["measure"] == name]
            order = list(frame["variant"].unique())[::-1]
            assert shown.places == pytest.approx(np.array([order.index(v) for v in part["variant"]]) + offset)
            check_drawn(shown, part)
