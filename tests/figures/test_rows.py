"""What is selected from the tables of results for the figures, on rows that can be counted."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import grid

from mpstudy.figures import rows


def estimates(frame: pd.DataFrame) -> pd.DataFrame:
    """Estimates 0.1, 0.2 and so on, with an interval to both sides."""
    estimate = np.arange(1, len(frame) + 1) / 10
    return frame.assign(estimate=estimate, low=estimate - 0.05, high=estimate + 0.05, n=3)


def test_in_percent():
    frame = estimates(pd.DataFrame({"measure": ["jaccard", "traded"], "method": "taylor"}))
    found = rows.in_percent(frame)
    assert found[["estimate", "low", "high"]].to_numpy().tolist() == [pytest.approx([20, 15, 25])]
    assert frame["estimate"].tolist() == [0.1, 0.2]  # as it was


def test_primary_claims_are_those_that_runs_have_recorded():
    contrasts = {"one": estimates(pd.DataFrame({"contrast": ["a", "b", "other"]}))}
    declared = {"b": ["one", "words of b", "%", 2], "c": ["one", "c", "%", 1], "d": ["two", "d", "%", 1]}
    (row,) = rows.primary(declared, contrasts).to_dict("records")
    assert row == {"claim": "words of b", "unit": "%", "margin": 2, "estimate": 0.2, "low": pytest.approx(0.15),
                   "high": 0.25, "n": 3}  # fmt: skip
    assert rows.primary({}, contrasts).empty


def test_bands_are_taylors_and_called_by_their_tokens():
    methods = ["taylor", "moreau", "taylor, 7 times the data"]
    steadiness = estimates(grid(method=methods, measure=["traded", "jaccard_heads"]))
    found = rows.bands(steadiness, {"samples": 10, "length": 64, "budget": 7})
    assert found[["method", "estimate"]].to_numpy().tolist() == [["640 tokens", 0.1], ["4,480 tokens", 0.5]]


def test_traded_units_by_panel():
    agreement = grid(pruner=["taylor", "moreau"], change=["corpus-wiki", "int8"], seed=[0, 1, 2])
    agreement["traded"] = [0.1, 0.2, 0.3, 0.01, 0.02, 0.06, *[0.5] * 3, *[0.25] * 3]
    formats = grid(what=["arithmetic"], pruner=["taylor"], seed=[0, 1, 2]).assign(traded=0.125)
    steadiness = estimates(grid(method=["taylor", "taylor, 7 times the data"], measure=["traded", "jaccard_heads"]))
    found = rows.traded(agreement, formats, steadiness)
    assert found[["panel", "change", "pruner"]].to_numpy().tolist() == [
        ["bf16 against fp16", "arithmetic", "taylor"],
        ["weights and arithmetic", "fp32 against int8", "taylor"],
        ["weights and arithmetic", "fp32 against int8", "moreau"],
        ["other calibration data", "corpus wiki", "taylor"],
        ["other calibration data", "corpus wiki", "moreau"],
        ["other calibration data", "another sample", "taylor"],
        ["other calibration data", "another sample, 7 times the data", "taylor"],
    ]
    assert found["estimate"].tolist() == pytest.approx([0.125, 0.03, 0.25, 0.2, 0.5, 0.1, 0.3])
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student, standard deviation 0.1 of three seeds
    assert found["low"].iloc[3] == pytest.approx(0.2 - half) and found["high"].iloc[3] == pytest.approx(0.2 + half)


def test_the_band_of_the_formats():
    contrasts = estimates(pd.DataFrame({"contrast": ["sample", "formats-arithmetic"]}))
    assert rows.formats_band(contrasts) == pytest.approx((0.15, 0.25))
    assert rows.formats_band(contrasts[:1]) is None


def test_methods_that_use_data():
    methods = ["l2", "taylor, mean of 7 scores", "moreau-release", "random"]
    frame = pd.DataFrame({"method": methods}, index=[3, 1, 4, 1])
    assert rows.with_data(frame)["method"].tolist() == methods[1:3]
    assert rows.with_data(frame[:0]).empty


def test_rows_at_their_cost():
    costs = pd.DataFrame({"method": ["taylor", "moreau", "moreau", "l2"], "gradients": [1, 6, 8, np.nan]})
    found = rows.at_cost(pd.DataFrame({"method": ["moreau", "l2", "taylor"], "nll": [3.0, 4.0, 5.0]}), costs)
    assert found.to_numpy().tolist() == [["moreau", 3.0, 7.0], ["taylor", 5.0, 1.0]]
