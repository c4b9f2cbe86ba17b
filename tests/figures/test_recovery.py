"""The figures of recovery and of costs, read from their artists."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import NOTE, check_three_seeds, grid, legend, levels, measured, points, ticks, words

from mpstudy.errors import StudyError
from mpstudy.figures import recovery

SEEDS, NAMES, CORPORA = [0, 1, 2], ["taylor", "moreau"], ["sotu-late", "wiki"]
TITLES = ["addresses since 1946", "Wikipedia"]


def estimated(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with estimates and an interval that is not symmetric."""
    frame = measured(frame, -20, 40, "estimate")
    return frame.assign(low=frame["estimate"] - 3, high=frame["estimate"] + 5)


def check_estimates(shown, rows: pd.DataFrame) -> None:
    for drawn, expected in ((shown.mean, "estimate"), (shown.low, "low"), (shown.high, "high")):
        assert drawn == pytest.approx(rows[expected].to_numpy())


def test_over_rows_with_the_dense_model_after_the_same_training():
    frame = estimated(grid(pruner=[*NAMES[::-1], "dense"], corpus=CORPORA, rows=[900, 0, 128]))
    frame = pd.concat([frame, estimated(grid(pruner=["random"], corpus=CORPORA, rows=[0, 128]))])
    figure = recovery.over_rows(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes] == TITLES and words(figure) == [NOTE]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dense", "random", *NAMES]
    assert ticks(figure.axes[1]) == ["none", "128", "900"] and figure.axes[1].get_xlabel() == "instruction rows of LoRA"
    for axis, corpus in zip(figure.axes, CORPORA):
        assert axis.get_ylabel() == "above dense\n(% of perplexity, log)" and levels(axis) == [0]
        for place, (name, shown) in enumerate(points(axis).items()):
            part = frame[(frame["pruner"] == name) & (frame["corpus"] == corpus)].sort_values("rows")
            assert shown.places == pytest.approx(np.arange(len(part)) + 0.08 * (place - 1.5))
            assert shown.style == ("--" if name == "dense" else "-")
            check_estimates(shown, part)


def test_accuracy_differences_on_one_axis():
    tasks = ["facts", "order", "all"]
    against_dense = grid(pruner=NAMES, rows=[0, 900], against=["dense"], task=tasks)
    frame = pd.concat([
        grid(pruner=["dense"], rows=[900], against=["dense"], task=tasks), against_dense,
        grid(pruner=["moreau"], rows=[0, 900], against=["taylor"], task=tasks),
    ], ignore_index=True)  # fmt: skip
    frame = estimated(frame)
    upper, lower = (figure := recovery.accuracy_differences(frame, NOTE)).axes
    assert (upper.get_title(), lower.get_title()) == ("minus dense", "minus taylor") and words(figure) == [NOTE]
    assert lower.get_xlabel() == "difference of accuracy (points)" and upper.get_xlim() == lower.get_xlim()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["dense", *NAMES, "before LoRA", "after LoRA"]
    for axis, against, count in ((upper, "dense", 5), (lower, "taylor", 2)):
        assert ticks(axis, "y") == ["facts", "order of\ntwo sentences", "all items"] and levels(axis, across=True) == [
            0
        ]
        assert len(axis.containers) == count
        part = frame[(frame["against"] == against) & (frame["pruner"] == "moreau") & (frame["rows"] == 900)]
        shown = points(axis, across=True)["moreau"]  # the last of that name, filled
        assert shown.face == shown.look[0] and shown.places == pytest.approx(-np.arange(3) + shown.places[0])
        check_estimates(shown, part)
    hollow = [c.lines[0].get_markerfacecolor() for c in upper.containers]
    assert hollow.count("white") == 2


def test_models_without_a_look_are_refused():
    frame = estimated(grid(pruner=["mystery"], corpus=CORPORA, rows=[0, 128]))
    with pytest.raises(StudyError, match="'mystery' is not registered"):
        recovery.over_rows(frame, NOTE)


def test_recovery_curves_leave_out_steps_without_a_measurement():
    frame = measured(grid(pruner=NAMES, step=[0, 1, 2], seed=SEEDS), 20, 30, "validation_loss")
    frame.loc[frame["step"] == 1, "validation_loss"] = np.nan
    (axis,) = (figure := recovery.recovery_curves(frame, NOTE)).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("LoRA step", "validation loss (nats a token)")
    assert legend(axis) == NAMES and words(figure) == [NOTE]
    for name, offset in zip(NAMES, (-0.125, 0.125)):
        shown = points(axis)[name]
        assert shown.places == pytest.approx(np.array([0, 2]) + offset)
        part = frame[(frame["pruner"] == name) & (frame["step"] != 1)]
        check_three_seeds(shown, part, "step", "validation_loss")


def test_lora_seeds_of_a_sample_are_averaged_before_the_interval():
    once = measured(grid(pruner=NAMES, step=[0, 2], seed=SEEDS), 20, 30, "validation_loss")
    twice = pd.concat([once.assign(validation_loss=once["validation_loss"] + move) for move in (-0.1, 0.1)])
    first, second = (points(recovery.recovery_curves(frame, NOTE).axes[0])["moreau"] for frame in (once, twice))
    assert first.low == pytest.approx(second.low) and first.mean == pytest.approx(second.mean)
