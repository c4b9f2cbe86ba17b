"""The figure of calibration data, read from its artists."""

import pandas as pd
import pytest
from helpers.artists import NOTE, grid, legend, levels, measured, points, ticks, words

from mpstudy.figures import data


def estimates(cases: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    frame = measured(cases, low, high, "estimate")
    return frame.assign(low=frame["estimate"] - 0.5, high=frame["estimate"] + 1)


@pytest.fixture
def frames():
    cases = pd.concat([
        grid(pruner=["taylor"], length=[64], tokens=[640, 1280, 20480]),
        grid(pruner=["moreau"], length=[64], tokens=[640]),
        grid(pruner=["taylor"], length=[2048], tokens=[20480]),
    ], ignore_index=True)  # fmt: skip
    return estimates(cases, 5, 40), estimates(cases.merge(grid(corpus=["wiki", "novel"]), how="cross"), -9, 9)


def test_a_panel_for_stability_and_one_a_text(frames):
    stability, quality = frames
    figure = data.over_tokens(stability, quality, (0.4, 0.6), NOTE)
    top, *below = figure.axes
    assert [axis.get_title() for axis in below] == ["Wikipedia", "novel"] and words(figure) == [NOTE]
    assert (top.get_xscale(), top.get_yscale(), below[0].get_yscale()) == ("log", "log", "linear")
    assert words(top) == ["bf16 against fp16 arithmetic"] and [patch.get_y() for patch in top.patches] == [0.4]
    assert [levels(axis) for axis in below] == [[0], [0]]
    assert ticks(below[1]) == ["640", "1.3k", "20k"] and below[1].get_xlabel() == "calibration tokens"
    assert legend(top) == ["taylor", "taylor, rows of 2,048", "moreau"]
    for axis, frame in zip((top, *below), (stability, *(quality[quality["corpus"] == c] for c in ("wiki", "novel")))):
        for name, part in (("taylor", frame[(frame["pruner"] == "taylor") & (frame["length"] == 64)]),
                           ("taylor, rows of 2,048", frame[frame["length"] == 2048])):  # fmt: skip
            shown = points(axis)[name]
            assert shown.places == pytest.approx(part["tokens"].to_numpy(), rel=0.15)
            for drawn, column in ((shown.mean, "estimate"), (shown.low, "low"), (shown.high, "high")):
                assert drawn == pytest.approx(part[column].to_numpy())
    assert points(top)["taylor"].style == "-" and points(top)["taylor, rows of 2,048"].face == "#ffffff"


def test_a_band_that_reaches_zero_ends_at_the_floor(frames):
    (band,) = data.over_tokens(*frames, (-0.1, 0.6), NOTE).axes[0].patches
    assert (band.get_y(), band.get_y() + band.get_height()) == (data.FLOOR, 0.6)


def test_without_a_band(frames):
    top = data.over_tokens(*frames, None, NOTE).axes[0]
    assert len(top.patches) == 0 and words(top) == []
