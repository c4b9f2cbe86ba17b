"""The figures of structured methods, read from their artists."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import NOTE, grid, legend_below, levels, points, ticks, words

from mpstudy.blocks.registry import BLOCK_PRUNERS
from mpstudy.errors import StudyError
from mpstudy.figures import methods
from mpstudy.pruners import PRUNERS

PIPELINES, CORPORA = ["taylor + least-squares", "flap", "block-ppl", "slicegpt"], ["wiki", "sotu-early"]


def test_against_taylor_has_a_line_a_pipeline_and_a_mark_a_text():
    frame = grid(pipeline=PIPELINES, corpus=CORPORA)
    frame["estimate"] = np.linspace(-40, 60, len(frame))
    frame = frame.assign(low=frame["estimate"] - 5, high=frame["estimate"] + 5)
    figure = methods.against_taylor(frame, NOTE)
    (axis,) = figure.axes
    assert ticks(axis, "y") == PIPELINES and levels(axis, across=True) == [0] and words(figure) == [NOTE]
    assert legend_below(figure) == ["Wikipedia", "addresses before 1946"]
    for corpus, shown in zip(CORPORA, points(axis, across=True).values()):
        part = frame[frame["corpus"] == corpus]
        assert shown.mean == pytest.approx(part["estimate"]) and shown.high == pytest.approx(part["high"])
        assert np.round(shown.places.astype(float)).tolist() == [0, 1, 2, 3]
    assert axis.get_xscale() == "linear"


def test_what_is_far_off_does_not_hide_the_rest():
    frame = pd.DataFrame({"pipeline": ["flap", "slicegpt"], "corpus": "wiki", "estimate": [5.0, 700.0]})
    frame = frame.assign(low=frame["estimate"] - 5, high=frame["estimate"] + 5)
    assert methods.against_taylor(frame, NOTE).axes[0].get_xscale() == "symlog"


def test_the_frontier_by_hand():
    frame = pd.DataFrame({"speedup": [1.0, 1.2, 1.2, 1.5, 1.4], "estimate": [10.0, 9.0, 30.0, 40.0, 50.0]})
    assert methods.frontier(frame)[["speedup", "estimate"]].to_numpy().tolist() == [[1.5, 40.0], [1.2, 9.0]]


def test_pareto_draws_each_pipeline_and_joins_the_frontier():
    frame = pd.DataFrame(
        {"pipeline": PIPELINES, "speedup": [1.1, 1.1, 1.3, 1.2], "estimate": [60.0, 80.0, 90.0, 300.0]}
    )
    frame = frame.assign(low=frame["estimate"] / 1.1, high=frame["estimate"] * 1.1)
    (axis,) = (figure := methods.pareto(frame, NOTE)).axes
    shown = points(axis)
    assert list(shown) == PIPELINES == legend_below(figure) and axis.get_yscale() == "log"
    assert shown["taylor + least-squares"].face == "#ffffff" and shown["flap"].face != "#ffffff"
    (joined,) = [line for line in axis.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    assert list(joined.get_xdata()) == [1.3, 1.1] and list(joined.get_ydata()) == [90, 60]


def test_over_strength_has_a_line_a_number_of_samples():
    frame = grid(samples=[16, 64], strength=[0.1, 0.3, 1.0], seed=[0, 1])
    frame["nll"] = np.linspace(3, 4, len(frame))
    (axis,) = (figure := methods.over_strength(frame, NOTE)).axes
    assert legend_below(figure) == ["16 samples", "64 samples"] and axis.get_xscale() == "log"
    lines = [line for line in axis.lines if not line.get_label().startswith("_")]
    expected = frame[frame["samples"] == 16].groupby("strength")["nll"].mean()
    assert lines[0].get_ydata() == pytest.approx(expected.to_numpy())


def test_every_method_has_a_look_of_its_own_and_no_other_has_one():
    looks = [methods.look(name) for name in (*PRUNERS, *BLOCK_PRUNERS, "slicegpt")]
    assert len({(each["color"], each["marker"]) for each in looks}) == len(looks)
    with pytest.raises(StudyError, match="'glue' is not registered"):
        methods.look("glue")
