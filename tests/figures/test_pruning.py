"""The figures of structured pruning, read from their artists."""

import numpy as np
import pytest
from helpers.artists import NOTE, check_three_seeds, grid, legend, levels, measured, points, ticks, words

from mpstudy.figures import pruning

RATIOS, SEEDS, CORPORA = [0.1, 0.2, 0.4], [0, 1, 2], ["sotu-late", "wiki"]
NAMES = ["l1", "taylor", "taylor2", "moreau", "moreau-release"]  # in the order of the registry
DENSE = {"sotu-late": 12.0, "wiki": 15.0}


@pytest.fixture
def perplexity():
    return measured(grid(pruner=NAMES[::-1], seed=SEEDS, ratio=RATIOS, corpus=CORPORA), 20, 400, "perplexity")


def test_perplexity_over_ratio(perplexity):
    figure = pruning.over_ratio(perplexity, DENSE, NOTE)
    (top, _), (bottom, _) = np.array(figure.axes).reshape(2, 2)
    assert words(figure) == [NOTE]
    assert top.get_yscale() == "log" and top.get_ylabel() == "perplexity (log scale)"
    assert bottom.get_yscale() == "linear" and bottom.get_ylabel() == "change against\nTaylor (%)"
    assert bottom.get_xlabel() == "units removed in each pruned layer"
    assert ticks(bottom) == ["10%", "20%", "40%"]
    assert legend(figure.axes[1]) == NAMES
    for axis, corpus in zip(figure.axes, CORPORA):
        assert axis.get_title() == {"sotu-late": "addresses since 1946", "wiki": "Wikipedia"}[corpus]
        assert levels(axis) == [DENSE[corpus]] and words(axis) == ["dense"]
        for place, name in enumerate(NAMES):
            part = perplexity[(perplexity["pruner"] == name) & (perplexity["corpus"] == corpus)]
            shown = points(axis)[name]
            check_three_seeds(shown, part, "ratio", "perplexity")
            assert shown.places == pytest.approx(np.arange(3) + 0.07 * (place - 2))


def test_the_change_against_taylor_is_paired_by_seed_and_only_of_its_relatives(perplexity):
    figure = pruning.over_ratio(perplexity, DENSE, NOTE)
    for axis, corpus in zip(figure.axes[2:], CORPORA):
        shown = points(axis)
        assert list(shown) == ["taylor2", "moreau"] and levels(axis) == [0]
        table = perplexity[perplexity["corpus"] == corpus].set_index(["pruner", "ratio", "seed"])["perplexity"]
        for name in shown:
            change = 100 * (table[name] / table["taylor"] - 1)
            check_three_seeds(shown[name], change.reset_index(), "ratio", "perplexity", RATIOS)


def test_without_taylor_there_is_nothing_below(perplexity):
    figure = pruning.over_ratio(perplexity[perplexity["pruner"] == "l1"], DENSE, NOTE)
    assert len(figure.axes) == 2 and list(points(figure.axes[0])) == ["l1"]


def test_values_by_layer():
    frame = measured(
        grid(pruner=["moreau", "l2"], kind=["attention", "mlp"], layer=[4, 5, 6, 7], seed=SEEDS), 0, 1, "jaccard"
    )
    figure = pruning.by_layer(frame, "jaccard", "Jaccard index with Taylor", NOTE, (0.2, "local scope"))
    assert [axis.get_title() for axis in figure.axes] == ["attention heads", "MLP channels"]
    assert figure.axes[0].get_ylabel() == "Jaccard index with Taylor" and words(figure) == [NOTE]
    assert legend(figure.axes[1]) == ["l2", "moreau"]
    for axis, kind in zip(figure.axes, ("attention", "mlp")):
        assert axis.get_xlabel() == "layer" and levels(axis) == [0.2] and words(axis) == ["local scope"]
        for name, shown in points(axis).items():
            assert list(shown.places) == [4, 5, 6, 7]
            check_three_seeds(shown, frame[(frame["pruner"] == name) & (frame["kind"] == kind)], "layer", "jaccard")


def test_values_by_layer_without_a_reference():
    frame = measured(grid(pruner=["l2"], kind=["mlp"], layer=[4, 5], seed=SEEDS), 0, 1, "jaccard")
    axis = pruning.by_layer(frame, "jaccard", "Jaccard index", NOTE).axes[0]
    assert levels(axis) == [] and words(axis) == []


def test_moreau_over_its_radius():
    frame = measured(grid(rho=[0.02, 0.05, 0.2], seed=SEEDS, corpus=CORPORA), -5, 5, "change_percent")
    frame["jaccard_taylor"] = 0.5 + frame["rho"] + 0.01 * frame["seed"]  # the same for both corpora
    figure = pruning.against_taylor(frame, NOTE)
    left, right = figure.axes
    assert words(figure) == [NOTE]
    check_three_seeds(points(left)["moreau"], frame[frame["corpus"] == "wiki"], "rho", "jaccard_taylor")
    assert left.get_ylabel() == "Jaccard index with Taylor's mask" and left.get_ylim() == (0, 1.03)
    assert right.get_ylabel() == "perplexity against Taylor (%)" and levels(right) == [0]
    assert legend(right) == ["addresses since 1946", "Wikipedia"]
    for corpus, label in zip(CORPORA, legend(right)):
        check_three_seeds(points(right)[label], frame[frame["corpus"] == corpus], "rho", "change_percent")
    assert [points(right)[label].style for label in legend(right)] == ["-", "--"]
    for axis in (left, right):
        assert axis.get_xscale() == "log" and ticks(axis) == ["0.02", "0.05", "0.2"]
        assert axis.get_xlabel() == "radius rho of the envelope"
