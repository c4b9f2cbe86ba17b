"""The figures of the envelope's notebook, read from their artists."""

import numpy as np
import pytest
from helpers.artists import NOTE, check_three_seeds, grid, legend, levels, measured, points, ticks, words

from mpstudy.figures import envelope

SEEDS = [0, 1, 2]


def test_convergence_is_a_line_a_seed_and_a_name_a_solver():
    steps = np.arange(2, 6)
    cases = grid(rho=[0.2, 0.02], tokens=[128, 64], solver=["spectral", "plain"], seed=[0, 1])
    traces = cases.merge(grid(gradients=steps), how="cross")
    traces = measured(traces, 1e-3, 1, "residual")
    figure = envelope.convergence(traces, 0.01, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["ρ = 0.02", "ρ = 0.2"] and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "relative prox residual"
    names = [f"{solver}, rows of {tokens} tokens" for tokens in (128, 64) for solver in ("spectral", "plain")]
    assert legend(figure.axes[1]) == names  # one name for the two seeds
    for axis, rho in zip(figure.axes, (0.02, 0.2)):
        assert axis.get_yscale() == "log" and axis.get_xlabel() == "gradients of the calibration loss"
        assert levels(axis) == [0.01]
        lines = [line for line in axis.lines if line.get_linestyle() != ":"]
        for line, case in zip(lines, cases[cases["rho"] == rho].to_dict("records"), strict=True):
            part = traces[(traces[list(case)] == list(case.values())).all(axis=1)]
            assert list(line.get_xdata()) == list(steps) and list(line.get_ydata()) == list(part["residual"])
            assert line.get_linestyle() == {"spectral": "-", "plain": "--"}[case["solver"]]


def test_lipschitz_ratios_stand_beside_their_bound():
    frame = grid(quantity=["gradient", "scores"], move=["noise", "gradient"], pruner=["taylor", "moreau"], seed=SEEDS)
    frame = measured(frame, 1, 10, "ratio").assign(bound=frame["quantity"].map({"gradient": 20.0, "scores": 90.0}))
    figure = envelope.lipschitz(frame, NOTE)
    assert "change of gradient" in figure.axes[0].get_ylabel() and "change of scores" in figure.axes[1].get_ylabel()
    assert legend(figure.axes[0]) == ["taylor", "moreau"] and words(figure) == [NOTE]
    for axis, quantity, bound in zip(figure.axes, ("gradient", "scores"), (20, 90)):
        assert axis.get_yscale() == "log" and axis.get_xlabel() == "how the weights move"
        assert ticks(axis) == ["noise", "gradient"] and levels(axis) == [bound] and words(axis) == ["bound"]
        for name, offset in (("taylor", -0.08), ("moreau", 0.08)):
            shown = points(axis)[name]
            assert shown.places == pytest.approx(np.arange(2) + offset)
            part = frame[(frame["pruner"] == name) & (frame["quantity"] == quantity)]
            check_three_seeds(shown, part, "move", "ratio")


def test_variants_from_the_top_down():
    names, columns = ["taylor", "smoothgrad", "release"], ["spearman_taylor", "jaccard_taylor", "perplexity_wiki"]
    frame = measured(grid(variant=names, seed=SEEDS), 0, 1, *columns)
    left, right = (figure := envelope.variants(frame, ["wiki"], 0.11, NOTE)).axes
    assert ticks(left, "y") == names[::-1] and words(figure) == [NOTE]
    assert left.get_xlabel() == "agreement with Taylor" and right.get_xlabel() == "perplexity of the pruned model"
    assert levels(left, across=True) == [0.11] and words(left) == ["chance"]
    assert legend(left) == ["rank correlation", "Jaccard index of masks"] and legend(right) == ["Wikipedia"]
    shown = points(left, across=True) | points(right, across=True)
    labels = (("rank correlation", 0.12), ("Jaccard index of masks", -0.12), ("Wikipedia", 0.12))
    for (label, place), column in zip(labels, columns):
        assert shown[label].places == pytest.approx(np.arange(3) + place)
        check_three_seeds(shown[label], frame, "variant", column, names[::-1])
