"""The figures of unstructured pruning, read from their artists."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.artists import (
    NOTE,
    Points,
    check_three_seeds,
    grid,
    legend_below,
    levels,
    measured,
    points,
    ticks,
    words,
)
from matplotlib.colors import to_hex
from scipy.stats import gmean

from mpstudy.errors import StudyError
from mpstudy.figures import baselines
from mpstudy.pruners import PRUNERS
from mpstudy.sparse import METHODS

SEEDS, TARGETS, NAMES = [0, 1, 2], ["0.5", "0.6", "2:4"], ["magnitude", "moreau", "moreau + admm"]


def in_logs(shown: Points) -> Points:
    return replace(shown, mean=np.log(shown.mean), low=np.log(shown.low), high=np.log(shown.high))


def test_perplexity_over_sparsity():
    frame = grid(corpus=["wiki", "novel"], method=NAMES, sparsity=TARGETS, seed=SEEDS)
    frame = measured(frame, 20, 900, "perplexity")
    figure = baselines.over_sparsity(frame, {"wiki": 15.0, "novel": 21.0}, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["Wikipedia", "novel"] and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "perplexity (log scale)" and legend_below(figure) == NAMES
    assert figure.axes[1].get_xlabel() == "zeros in the pruned layers"
    assert ticks(figure.axes[1]) == ["50%", "60%", "2:4"]
    frame["log"] = np.log(frame["perplexity"])
    for axis, corpus, dense in zip(figure.axes, ("wiki", "novel"), (15, 21)):
        assert axis.get_yscale() == "log" and levels(axis) == [dense] and words(axis) == ["dense"]
        for offset, (name, shown) in zip((-0.07, 0, 0.07), points(axis).items()):
            assert shown.places == pytest.approx(np.arange(3) + offset) and shown.style == "None"
            part = frame[(frame["method"] == name) & (frame["corpus"] == corpus)]
            check_three_seeds(in_logs(shown), part, "sparsity", "log")


def test_no_line_leads_to_a_pattern():
    frame = measured(grid(corpus=["wiki"], method=["wanda"], sparsity=TARGETS, seed=SEEDS), 20, 900, "perplexity")
    axis = baselines.over_sparsity(frame, {"wiki": 15.0}, NOTE).axes[0]
    (line,) = [line for line in axis.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    means = frame.groupby("sparsity")["perplexity"].agg(gmean)
    assert list(line.get_xdata()) == [0, 1] and line.get_ydata() == pytest.approx(means[["0.5", "0.6"]].to_numpy())


@pytest.fixture
def errors():
    """Errors of two linear layers in each of three; that of magnitude, which needs no data, for one seed alone."""
    linears = [f"model.layers.{layer}.{kind}" for layer in (4, 5, 6) for kind in ("q_proj", "down_proj")]
    frame = measured(grid(method=["magnitude", "sparsegpt", "wanda"], linear=linears, seed=SEEDS), 0.01, 0.5, "error")
    frame["layer"] = frame["linear"].str.split(".").str[2].astype(int)
    return frame[(frame["method"] != "magnitude") | (frame["seed"] == 0)]


def test_errors_by_layer_are_ratios_to_sparsegpt(errors):
    figure = baselines.error_by_layer(errors, NOTE)
    (axis,) = figure.axes
    assert axis.get_yscale() == "log" and levels(axis) == [1] and words(figure) == [NOTE]
    assert axis.get_xlabel() == "layer" and "ratio to SparseGPT" in axis.get_ylabel()
    assert legend_below(figure) == ["magnitude", "wanda"]
    table = np.log(errors.set_index(["method", "linear", "seed"])["error"])
    for name, offset in (("magnitude", -0.15), ("wanda", 0.15)):
        own = table["magnitude"].droplevel("seed") if name == "magnitude" else table[name]
        logs = (own - table["sparsegpt"]).rename("log").reset_index()
        logs["layer"] = logs["linear"].str.split(".").str[2].astype(int)
        logs = logs.groupby(["layer", "seed"])["log"].mean().reset_index()
        shown = points(axis)[name]
        assert shown.places == pytest.approx(np.array([4, 5, 6]) + offset)
        check_three_seeds(in_logs(shown), logs, "layer", "log")


@pytest.mark.parametrize("name", [name for name in METHODS if name != "masked"])
def test_every_method_has_the_look_of_its_registration(name):
    own = METHODS[name].look
    assert baselines.look(name) == {"color": own.colour, "marker": own.marker, "markersize": 4, "label": name}


def test_masks_by_scores_look_like_their_pruner_and_updates_are_white_inside():
    own = PRUNERS["moreau"].look
    assert baselines.look("moreau") == {"color": own.colour, "marker": own.marker, "markersize": 4, "label": "moreau"}
    updated = baselines.look("moreau + admm")
    assert updated == baselines.look("moreau") | {"label": "moreau + admm", "markerfacecolor": "white"}
    assert to_hex(updated["color"]) == own.colour


def test_a_method_that_is_not_registered_is_an_error_that_says_what_to_do():
    with pytest.raises(StudyError, match=r"method 'llm-barber' is not registered, .*\"Adding a method\""):
        baselines.look("llm-barber + admm")
