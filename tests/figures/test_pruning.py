"""The figures of structured pruning, read from their artists."""

import numpy as np
import pytest
from helpers.artists import NOTE, check_three_seeds, curves, grid, legend_below, levels, measured, points, ticks, words

from mpstudy.errors import StudyError
from mpstudy.figures import pruning
from mpstudy.pruners import PRUNERS

SEEDS, SHARES, CORPORA = [0, 1, 2], [0.1, 0.2, 0.3], ["sotu-late", "wiki"]
METHODS = ["moreau", "taylor2", "taylor, 7 times the data"]  # not in the order of the registry
TITLES = ["addresses since 1946", "Wikipedia"]


@pytest.fixture
def gaps():
    frame = measured(grid(method=METHODS, share=SHARES, corpus=CORPORA), -5, 5, "estimate", "half")
    half = frame.pop("half").abs()
    return frame.assign(low=frame["estimate"] - half, high=frame["estimate"] + half)


def test_the_change_against_taylor_has_the_intervals_given(gaps):
    figure = pruning.against_taylor(gaps, NOTE)
    assert [axis.get_title() for axis in figure.axes] == TITLES and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "change against\nTaylor (%, log)" and legend_below(figure) == METHODS
    assert figure.axes[1].get_xlabel() == "parameters removed of the pruned layers"
    assert ticks(figure.axes[1]) == ["10%", "20%", "30%"]
    for axis, corpus in zip(figure.axes, CORPORA):
        assert levels(axis) == [0] and list(axis.get_xticks()) == [0, 1, 2]
        for offset, (method, shown) in zip((-0.8 / 3, 0, 0.8 / 3), points(axis).items()):
            part = gaps[(gaps["corpus"] == corpus) & (gaps["method"] == method)]
            assert shown.places == pytest.approx(np.arange(3) + offset) and shown.style == "None"
            for drawn, column in ((shown.mean, "estimate"), (shown.low, "low"), (shown.high, "high")):
                assert drawn == pytest.approx(part[column].to_numpy())


def test_a_method_looks_like_its_pruner_and_is_white_inside_when_special(gaps):
    shown = points(pruning.against_taylor(gaps, NOTE).axes[0])
    for method in METHODS:
        own = PRUNERS[method.partition(",")[0]].look
        assert shown[method].look == (own.colour, own.marker)
    assert shown["moreau"].face == PRUNERS["moreau"].look.colour and shown["taylor, 7 times the data"].face == "#ffffff"


def test_a_method_of_no_pruner_is_an_error(gaps):
    with pytest.raises(StudyError, match="pruner 'mine' is not registered"):
        pruning.against_taylor(gaps.replace("moreau", "mine, twice"), NOTE)


def test_log_perplexity_over_gradients():
    frame = measured(grid(method=METHODS, seed=SEEDS, corpus=CORPORA), 3, 4, "nll")
    frame["gradients"] = frame["method"].map(dict(zip(METHODS, (7, 1, 7)))).astype(float) + 0.5 * (frame["seed"] - 1)
    figure = pruning.over_compute(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes] == TITLES
    assert legend_below(figure) == [METHODS[1], METHODS[0], METHODS[2]]  # by cost
    assert figure.axes[0].get_ylabel() == "log-perplexity (nats per token)"
    assert {NOTE, "gradients of the calibration sample, rounded"} == {*words(figure), figure.get_supxlabel()}
    for axis, corpus in zip(figure.axes, CORPORA):
        assert ticks(axis) == ["1", "7"]
        for place, method in zip((0.8, 0, 1.2), METHODS):  # methods of one cost stand side by side at its tick
            shown = points(axis)[method]
            assert shown.places == pytest.approx([place])
            part = frame[(frame["corpus"] == corpus) & (frame["method"] == method)]
            check_three_seeds(shown, part, "method", "nll")


def test_agreement_by_layer_is_the_mean_over_seeds_beside_chance():
    frame = measured(grid(method=METHODS, layer=[4, 5, 6], seed=SEEDS), 0, 1, "jaccard_taylor").assign(chance=0.11)
    figure = pruning.by_layer(frame, NOTE)
    (axis,) = figure.axes
    assert axis.get_xlabel() == "layer" and axis.get_ylabel() == "Jaccard index with Taylor's\nremoved channels"
    assert levels(axis) == [pytest.approx(0.11)] and words(axis) == ["two random masks"] and words(figure) == [NOTE]
    assert legend_below(figure) == METHODS
    for method, (x, y) in curves(axis).items():
        means = frame[frame["method"] == method].groupby("layer")["jaccard_taylor"].mean()
        assert list(x) == [4, 5, 6] and y == pytest.approx(means.to_numpy())
