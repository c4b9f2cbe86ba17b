"""The figures of what instability costs, read from their artists."""

import numpy as np
import pytest
from helpers.artists import NOTE, curves, grid, legend, levels, measured, points, ticks, words

from mpstudy.figures import cost
from mpstudy.figures.look import look

CORPORA = ["wiki", "novel"]
MORE = "taylor, 7 times the data"


def with_bars(frame):
    return frame.assign(low=frame["estimate"] - 0.05, high=frame["estimate"] + 0.05, by_chance=0.1)


@pytest.fixture
def samples():
    return with_bars(measured(grid(share=[0.1, 0.2], corpus=CORPORA), 2, 3, "estimate"))


def test_table_one(samples):
    frame = grid(pruner=["moreau", "taylor"], share=[0.1, 0.2], corpus=CORPORA)
    frame = with_bars(measured(frame, 0.2, 0.9, "estimate"))
    figure = cost.table_one(frame, samples, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["Wikipedia", "novel"] and NOTE in words(figure)
    assert figure.axes[1].get_xlabel() == "parameters removed from the prunable layers (%)"
    assert legend(figure.axes[1]) == ["two samples", "the windows alone", "taylor", "moreau"]
    for axis, corpus in zip(figure.axes, CORPORA):
        band, line = samples[samples["corpus"] == corpus], axis.lines[0]
        assert axis.get_yscale() == "log" and line.get_label() == "two samples"
        assert list(line.get_xdata()) == [10, 20] and list(line.get_ydata()) == list(band["estimate"])
        corners = axis.collections[0].get_paths()[0].vertices
        assert corners[:, 1].min() == band["low"].min() and corners[:, 1].max() == band["high"].max()
        for offset, (name, shown) in zip((-0.175, 0.175), points(axis).items()):
            part = frame[(frame["pruner"] == name) & (frame["corpus"] == corpus)]
            assert shown.places == pytest.approx(np.array([10, 20]) + offset)
            for drawn, column in ((shown.mean, "estimate"), (shown.low, "low"), (shown.high, "high")):
                assert drawn == pytest.approx(part[column].to_numpy())
        dashes = [line for line in axis.lines if (line.get_marker(), line.get_markersize()) == ("_", 9)]  # no caps
        assert [list(line.get_ydata()) for line in dashes] == [[0.1, 0.1]] * 2


def test_the_band_of_one_share_is_as_wide_as_the_figure(samples):
    samples, frame = samples[samples["share"] == 0.2], grid(pruner=["taylor"], share=[0.2], corpus=CORPORA)
    figure = cost.table_one(with_bars(measured(frame, 0.2, 0.9, "estimate")), samples, NOTE)
    assert legend(figure.axes[1]) == ["two samples", "the windows alone", "taylor"]
    for axis, row in zip(figure.axes, samples.itertuples()):
        assert list(axis.lines[0].get_xdata()) == [0, 1] and list(axis.lines[0].get_ydata()) == [row.estimate] * 2
        (x0, y0), (x1, y1) = axis.patches[0].get_bbox().get_points()
        assert (x0, x1) == (0, 1) and (y0, y1) == pytest.approx((row.low, row.high))  # of the axis, and in per cent


def test_equal_models_lie_on_the_lower_edge(samples):
    frame = grid(pruner=["taylor"], share=[0.1, 0.2], corpus=CORPORA).assign(estimate=[0.0, 0.0, 0.4, 0.8])
    figure = cost.table_one(
        frame.assign(low=frame["estimate"] - 1, high=frame["estimate"], by_chance=0.1), samples, NOTE
    )
    for axis, most in zip(figure.axes, (0.4, 0.8)):
        shown = points(axis)["taylor"]
        assert axis.get_ylim()[0] == pytest.approx(0.08)  # a fifth of the least positive estimate
        assert shown.mean == pytest.approx([0.08, most]) and shown.low == pytest.approx([0.08, 0.08])


def test_spread():
    frame = grid(method=["moreau", MORE], corpus=CORPORA, seed=[0, 1, 2])
    frame = frame.assign(change=np.tile([-2.0, 0.0, 2.0], 4) * np.repeat([1, 2, 3, 4], 3))
    figure = cost.spread(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["Wikipedia", "novel"] and NOTE in words(figure)
    assert ticks(figure.axes[1]) == ["moreau", "taylor,\n7 times the data"]
    for axis, sds in zip(figure.axes, ((2, 6), (4, 8))):
        assert levels(axis) == [0] and [text.splitlines()[0] for text in words(axis)] == [f"SD {sd}.0" for sd in sds]
        bars = [line for line in axis.lines if line.get_linewidth() == 3]
        for place, (sd, bar, (name, (x, y))) in enumerate(zip(sds, bars, curves(axis).items())):
            assert name == ["moreau", MORE][place] and list(x) == [place] * 3 and list(y) == [-sd, 0, sd]
            assert list(bar.get_ydata()) == pytest.approx([-sd, sd]) and list(bar.get_xdata()) == [place + 0.15] * 2
    assert words(figure.axes[0])[0] == "SD 2.0\n[1.0, 12.6]"  # chi-square with two degrees of freedom


def test_steady_and_good():
    frame = measured(grid(method=["moreau", "taylor", MORE], corpus=CORPORA), 0.3, 0.5, "traded", "perplexity")
    frame = frame.assign(perplexity=100 * frame["perplexity"], traded_low=frame["traded"] - 0.1, traded_high=0.6)
    frame = frame.assign(low=frame["perplexity"] - 2, high=frame["perplexity"] + 3)
    figure = cost.steady_and_good(frame, NOTE)
    assert legend(figure.axes[1]) == ["moreau", "taylor", MORE] and NOTE in words(figure)
    assert figure.axes[1].get_xlabel() == "units traded between two calibration samples (%)"
    for axis, corpus in zip(figure.axes, CORPORA):
        assert axis.get_yscale() == "log" and axis.get_ylabel() == "perplexity"
        part = frame[frame["corpus"] == corpus].to_dict("records")
        across = [(line.get_color(), *line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
        assert across == [
            (look(row["method"].split(",")[0])["color"], pytest.approx(100 * row["traded_low"]), 60) for row in part
        ]
        shown = points(axis)
        assert shown["taylor"].look == shown[MORE].look and shown[MORE].face == "#ffffff" != shown["taylor"].face
        for row in part:
            dot = shown[row["method"]]
            assert (*dot.places, *dot.mean) == pytest.approx((100 * row["traded"], row["perplexity"]))
            assert (*dot.low, *dot.high) == pytest.approx((row["low"], row["high"]))
