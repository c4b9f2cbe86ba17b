"""The figures of recovery and of costs, read from their artists."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import NOTE, check_three_seeds, curves, grid, legend, levels, measured, points, ticks, words

from mpstudy.figures import recovery

SEEDS, NAMES, CORPORA = [0, 1, 2], ["taylor", "moreau"], ["sotu-late", "wiki"]
TITLES = ["addresses since 1946", "Wikipedia"]


def test_share_over_rows():
    frame = measured(grid(pruner=NAMES[::-1], corpus=CORPORA, rows=[32, 128], seed=SEEDS), -10, 60, "share")
    figure = recovery.share_over_rows(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes] == TITLES and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "lost log-perplexity\nthat comes back (%)" and legend(figure.axes[1]) == NAMES
    for axis, corpus in zip(figure.axes, CORPORA):
        assert axis.get_xscale() == "log" and axis.get_xlabel() == "instruction rows"
        assert ticks(axis) == ["32", "128"] and levels(axis) == [0]
        for offset, (name, shown) in zip((-0.03, 0.03), points(axis).items()):
            assert shown.places == pytest.approx(np.array([32, 128]) * np.exp(offset))
            part = frame[(frame["pruner"] == name) & (frame["corpus"] == corpus)]
            check_three_seeds(shown, part, "rows", "share")


def test_pareto_in_units_of_the_axes():
    frame = measured(grid(pruner=NAMES, ratio=[0.1, 0.4], seed=SEEDS), 20, 90, "perplexity")
    for name, most in (("parameters", 150e6), ("macs", 20e9), ("decode_s", 1.5)):
        frame[name] = most * (1 - frame["ratio"])
    dense = pd.Series({"parameters": 150e6, "macs": 20e9, "decode_s": 1.5, "perplexity": 15.0})
    figure = recovery.pareto(frame, dense, NOTE)
    labels = ["parameters (millions)", "multiply-accumulates,\n128 tokens (billions)", "seconds for 32 tokens"]
    assert [axis.get_xlabel() for axis in figure.axes] == labels and figure.axes[0].get_ylabel() == "perplexity"
    assert sorted(legend(figure.axes[2])) == sorted([*NAMES, "dense"]) and words(figure) == [NOTE]
    for axis, most in zip(figure.axes, (150, 20, 1.5)):
        assert axis.get_yscale() == "log"
        x, y = curves(axis)["dense"]
        assert x == pytest.approx([most]) and list(y) == [15]
        for name in NAMES:
            shown = points(axis)[name]
            assert shown.places == pytest.approx(most * np.array([0.9, 0.6]))
            check_three_seeds(shown, frame[frame["pruner"] == name], "ratio", "perplexity")


def test_recovery_curves_leave_out_steps_without_a_measurement():
    frame = measured(grid(pruner=NAMES, step=[0, 1, 2], seed=SEEDS), 1, 3, "validation_loss")
    frame.loc[frame["step"] == 1, "validation_loss"] = np.nan
    (axis,) = (figure := recovery.recovery_curves(frame, NOTE)).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("LoRA step", "validation loss (nats a token)")
    assert legend(axis) == NAMES and words(figure) == [NOTE]
    for name, offset in zip(NAMES, (-0.125, 0.125)):
        shown = points(axis)[name]
        assert shown.places == pytest.approx(np.array([0, 2]) + offset)
        part = frame[(frame["pruner"] == name) & (frame["step"] != 1)]
        check_three_seeds(shown, part, "step", "validation_loss")


def test_before_and_after_with_dense_and_chance_levels():
    tasks, dense, chance = ["facts", "agreement"], {"facts": 0.7, "agreement": 0.9}, {"facts": 0.25}
    frame = measured(grid(pruner=NAMES, task=tasks, state=["recovered", "pruned"], seed=SEEDS), 0.3, 0.8, "value")
    figure = recovery.before_after(frame, "value", "task", "accuracy", dense, NOTE, chance)
    assert [axis.get_title() for axis in figure.axes] == tasks and figure.axes[0].get_ylabel() == "accuracy"
    assert legend(figure.axes[1]) == NAMES and words(figure) == [NOTE]
    assert levels(figure.axes[0]) == [0.7, 0.25] and words(figure.axes[0]) == ["dense", "chance"]
    assert levels(figure.axes[1]) == [0.9] and words(figure.axes[1]) == ["dense"]
    for axis, task in zip(figure.axes, tasks):
        assert ticks(axis) == ["pruned", "recovered"]
        for offset, (name, shown) in zip((-0.05, 0.05), points(axis).items()):
            assert shown.places == pytest.approx(np.arange(2) + offset)
            part = frame[(frame["pruner"] == name) & (frame["task"] == task)]
            check_three_seeds(shown, part, "state", "value", ["pruned", "recovered"])


def test_corpora_have_their_titles():
    frame = measured(
        grid(pruner=NAMES, corpus=CORPORA, state=["pruned", "recovered"], seed=SEEDS), 20, 90, "perplexity"
    )
    figure = recovery.before_after(frame, "perplexity", "corpus", "perplexity", dict.fromkeys(CORPORA, 12.0), NOTE)
    assert [axis.get_title() for axis in figure.axes] == TITLES and levels(figure.axes[0]) == [12]
