"""The figures of unstructured pruning, read from their artists."""

import numpy as np
import pytest
from helpers.artists import NOTE, check_three_seeds, curves, grid, legend, levels, measured, points, ticks, words
from matplotlib.colors import to_hex

from mpstudy.errors import StudyError
from mpstudy.figures import baselines
from mpstudy.pruners import PRUNERS
from mpstudy.sparse import METHODS

SEEDS, TARGETS, NAMES = [0, 1, 2], ["0.5", "0.6", "2:4"], ["magnitude", "moreau", "moreau + admm"]


def test_perplexity_over_sparsity():
    frame = grid(corpus=["wiki", "novel"], method=NAMES, sparsity=TARGETS, seed=SEEDS)
    frame = measured(frame, 20, 900, "perplexity")
    figure = baselines.over_sparsity(frame, {"wiki": 15.0, "novel": 21.0}, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["Wikipedia", "novel"] and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "perplexity (log scale)" and legend(figure.axes[1]) == NAMES
    for axis, corpus, dense in zip(figure.axes, ("wiki", "novel"), (15, 21)):
        assert axis.get_yscale() == "log" and axis.get_xlabel() == "zeros in the pruned layers"
        assert ticks(axis) == ["50%", "60%", "2:4"] and levels(axis) == [dense] and words(axis) == ["dense"]
        for offset, (name, shown) in zip((-0.07, 0, 0.07), points(axis).items()):
            assert shown.places == pytest.approx(np.arange(3) + offset) and shown.style == "None"
            part = frame[(frame["method"] == name) & (frame["corpus"] == corpus)]
            check_three_seeds(shown, part, "sparsity", "perplexity")


def test_no_line_leads_to_a_pattern():
    frame = measured(grid(corpus=["wiki"], method=["wanda"], sparsity=TARGETS, seed=SEEDS), 20, 900, "perplexity")
    axis = baselines.over_sparsity(frame, {"wiki": 15.0}, NOTE).axes[0]
    (line,) = [line for line in axis.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    means = frame.groupby("sparsity")["perplexity"].mean()
    assert list(line.get_xdata()) == [0, 1] and line.get_ydata() == pytest.approx(means[["0.5", "0.6"]].to_numpy())


def test_errors_by_layer():
    kinds = ["q_proj", "o_proj", "down_proj"]
    frame = grid(linear=[f"model.layers.4.{kind}" for kind in kinds], method=NAMES, layer=[4, 5, 6], seed=SEEDS)
    frame = measured(frame, 0.01, 0.5, "error")
    figure = baselines.error_by_layer(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes[:3]] == kinds and not figure.axes[3].axison
    assert {"layer", "relative squared error (log scale)", NOTE} <= set(words(figure))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES
    for axis, linear in zip(figure.axes, frame["linear"].unique()):
        assert axis.get_yscale() == "log"
        for name in NAMES:
            part = frame[(frame["linear"] == linear) & (frame["method"] == name)]
            x, y = curves(axis)[name]
            assert list(x) == [4, 5, 6] and y == pytest.approx(part.groupby("layer")["error"].mean().to_numpy())


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
