"""The figures of the instability notebooks, read from their artists."""

import numpy as np
import pytest
from helpers.artists import NOTE, check_three_seeds, curves, grid, legend, levels, measured, points, ticks, words

from mpstudy.errors import StudyError
from mpstudy.figures import instability

SEEDS = [0, 1, 2]
CHANGES = ["sample", "bfloat16-arithmetic", "noise-1e-2", "tuned"]
LABELS = {"sample": "other sample", "bfloat16-arithmetic": "bf16 arithmetic", "noise-1e-2": "noise 1e-2"}
LABELS |= {"tuned": "LoRA update"}


@pytest.fixture
def agreement():
    frame = measured(
        grid(pruner=["moreau", "taylor"], change=CHANGES, seed=SEEDS), 0.2, 0.9, "jaccard", "kl", "corrected"
    )
    return frame.assign(chance=0.11, change_percent=100 * frame["corrected"] - 50)


def test_dose_response():
    frame = grid(kind=["isotropic", "noise", "int8"], pruner=["moreau", "taylor"], dose=[1e-3, 1e-2], seed=SEEDS)
    frame = measured(frame, 0.2, 0.9, "jaccard").assign(chance=0.11)
    figure = instability.dose_response(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["relative noise, σ|w|", "isotropic noise, σ"]
    assert figure.axes[0].get_ylabel() == "Jaccard index of the two masks" and words(figure) == [NOTE]
    assert words(figure.axes[0]) == ["two random masks"] and legend(figure.axes[0]) == ["taylor", "moreau"]
    for axis, kind in zip(figure.axes, ("noise", "isotropic")):
        assert axis.get_xscale() == "log" and axis.get_xlabel() == "‖change of weights‖ / ‖weights‖"
        assert levels(axis) == [pytest.approx(0.11)] and axis.get_ylim() == (0, 1.03)
        for name, shown in points(axis).items():
            assert list(shown.places) == [1e-3, 1e-2]
            check_three_seeds(shown, frame[(frame["pruner"] == name) & (frame["kind"] == kind)], "dose", "jaccard")


def test_by_change_the_least_stable_is_lowest(agreement):
    (axis,) = (figure := instability.by_change(agreement, NOTE)).axes
    order = agreement.groupby("change")["jaccard"].mean().sort_values().index.tolist()
    assert ticks(axis, "y") == [LABELS[change] for change in order] and list(axis.get_yticks()) == [0, 1, 2, 3]
    assert axis.get_xlabel() == "Jaccard index of the masks before and after the change"
    assert levels(axis, across=True) == [pytest.approx(0.11)] and words(axis) == ["two random masks"]
    assert legend(axis) == ["taylor", "moreau"] and words(figure) == [NOTE]
    for name, offset in (("taylor", 0.3), ("moreau", -0.3)):
        shown = points(axis, across=True)[name]
        assert shown.places == pytest.approx([order.index(change) + offset for change in CHANGES])
        check_three_seeds(shown, agreement[agreement["pruner"] == name], "change", "jaccard", CHANGES)


def test_a_change_that_is_none_is_named(agreement):
    with pytest.raises(StudyError, match="unknown change 'int3'"):
        instability.by_change(agreement.replace({"change": {"sample": "int3"}}), NOTE)


def test_over_ratio():
    frame = grid(change=["noise-1e-2", "sample"], pruner=["random", "l1", "moreau"], ratio=[0.1, 0.5], seed=SEEDS)
    frame = measured(frame, -0.1, 0.9, "corrected")
    figure = instability.over_ratio(frame, NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["noise 1e-2", "other sample"] and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "overlap of masks,\nchance-corrected"
    assert legend(figure.axes[1]) == ["random", "l1", "moreau"]
    for axis, change in zip(figure.axes, ("noise-1e-2", "sample")):
        assert levels(axis) == [0] and axis.get_xlabel() == "units removed (%)"
        for offset, (name, shown) in zip((-0.6, 0, 0.6), points(axis).items()):
            assert shown.places == pytest.approx(np.array([10, 50]) + offset)
            check_three_seeds(
                shown, frame[(frame["pruner"] == name) & (frame["change"] == change)], "ratio", "corrected"
            )


def test_shares_of_the_variance():
    frame = measured(grid(pruner=["taylor", "moreau"], source=["calibration", "noise", "rest"]), 0.2, 0.4, "share")
    frame = frame.assign(low=frame["share"] - 0.1, high=frame["share"] + 0.2)
    (axis,) = (figure := instability.variance_shares(frame, NOTE)).axes
    assert ticks(axis, "y") == ["rest", "noise", "calibration"] and words(figure) == [NOTE]
    assert axis.get_xlabel() == "share of the variance of log scores (%)" and axis.get_xlim() == (-3, 103)
    assert legend(axis) == ["taylor", "moreau"]
    for name, offset in (("taylor", 0.15), ("moreau", -0.15)):
        part, shown = frame[frame["pruner"] == name], points(axis, across=True)[name]
        assert shown.places == pytest.approx(np.array([2, 1, 0]) + offset)
        for column, drawn in (("share", shown.mean), ("low", shown.low), ("high", shown.high)):
            assert drawn == pytest.approx(100 * part[column].to_numpy())


def test_stability_against_quality(agreement):
    left, right = (figure := instability.stability_and_quality(agreement, NOTE)).axes
    assert left.get_yscale() == "log" and left.get_ylabel() == "divergence of the two\npruned models (nats per token)"
    assert right.get_yscale() == "linear" and right.get_ylabel() == "change of perplexity (%)"
    assert levels(right) == [0] and legend(right) == ["taylor", "moreau"] and words(figure) == [NOTE]
    for axis, column in ((left, "kl"), (right, "change_percent")):
        assert axis.get_xlabel() == "Jaccard index of the two masks"
        for name in ("taylor", "moreau"):
            part, (x, y) = agreement[agreement["pruner"] == name], curves(axis)[name]
            assert list(x) == list(part["jaccard"]) and list(y) == list(part[column])


def test_steady_and_good():
    names = ["random", "taylor", "moreau"]
    frame = measured(grid(pruner=names[::-1]), 1, 2, "jaccard", "perplexity_wiki", "perplexity_novel")
    figure = instability.steady_and_good(frame, ["wiki", "novel"], NOTE)
    assert [axis.get_title() for axis in figure.axes] == ["Wikipedia", "novel"] and words(figure) == [NOTE]
    assert figure.axes[0].get_ylabel() == "perplexity of the pruned model" and legend(figure.axes[1]) == names
    for axis, corpus in zip(figure.axes, ("wiki", "novel")):
        assert axis.get_xlabel() == "Jaccard index under another calibration sample"
        for row in frame.to_dict("records"):
            assert curves(axis)[row["pruner"]] == (row["jaccard"], row[f"perplexity_{corpus}"])
