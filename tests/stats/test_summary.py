"""Intervals, tests and summaries: hand values, closed forms, and error rates under simulation."""

import numpy as np
import pandas as pd
import pytest

from mpstudy import stats
from mpstudy.errors import StudyError

ROWS = [
    {"pruner": "taylor", "ratio": 0.2, "seed": 0, "ppl": 30.0},
    {"pruner": "moreau", "ratio": 0.2, "seed": 0, "ppl": 21.0},
    {"pruner": "taylor", "ratio": 0.2, "seed": 1, "ppl": 33.0},
    {"pruner": "moreau", "ratio": 0.4, "seed": 0, "ppl": 50.0},
]


def coverage(method, n, trials, seed=0):
    """How often the interval of ``n`` standard normal values contains their true mean, 0."""
    rng = np.random.default_rng(seed)
    intervals = [method(rng.normal(size=n)) for _ in range(trials)]
    return np.mean([low <= 0 <= high for _, low, high in intervals])


def quick_bootstrap(values):
    return stats.bootstrap_ci(values, resamples=1000)


@pytest.mark.parametrize("method", [stats.interval, stats.bootstrap_ci])
def test_one_value_has_no_interval(method):
    mean, low, high = method([3.0])
    assert mean == 3 and np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize("method", [stats.interval, stats.bootstrap_ci])
@pytest.mark.parametrize("n", [2, 3, 7, 8, 20, 130])
@pytest.mark.parametrize("value", [0.1, 0.33])
def test_constant_in_constant_out(method, n, value):
    mean, low, high = method([value] * n)
    assert low == pytest.approx(value) and high == pytest.approx(value)
    assert low <= mean <= high  # an error bar of negative length would stop a plot


@pytest.mark.parametrize("values", [[2.0, 5.0], [4.0, 1.0, 2.0]])
def test_bootstrap_of_two_or_three_values_is_their_range(values):
    assert stats.bootstrap_ci(values) == pytest.approx((np.mean(values), min(values), max(values)))


def test_bootstrap_moves_with_its_values_and_repeats():
    values = np.random.default_rng(0).normal(size=10)
    once = np.array(stats.bootstrap_ci(values))
    assert stats.bootstrap_ci(values) == tuple(once)
    assert stats.bootstrap_ci(3 * values + 1) == pytest.approx(tuple(3 * once + 1))
    assert stats.bootstrap_ci(values, seed=1) != tuple(once)


def test_bootstrap_narrows_with_level_and_takes_other_statistics():
    values = np.random.default_rng(0).exponential(size=15)
    median, low, high = stats.bootstrap_ci(values, statistic=np.median)
    assert median == np.median(values) and low < median < high
    _, wide_low, wide_high = stats.bootstrap_ci(values, level=0.99)
    _, low, high = stats.bootstrap_ci(values, level=0.5)
    assert wide_low < low < high < wide_high


def test_bootstrap_of_many_values_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=500)
    _, low, high = stats.bootstrap_ci(values, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.06)


def test_interval_by_hand():
    half = 4.302653 / 3**0.5  # the 97.5 % point of t with 2 degrees of freedom, standard deviation 1
    assert stats.interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - half, 2 + half))


@pytest.mark.parametrize(
    ("method", "n", "expected"),
    [(quick_bootstrap, 3, 0.75), (quick_bootstrap, 100, 0.95), (quick_bootstrap, 6, 0.86)],
)
def test_coverage_of_the_bootstrap_is_as_documented(method, n, expected):
    trials = 500
    standard_error = np.sqrt(expected * (1 - expected) / trials)
    assert abs(coverage(method, n, trials) - expected) < 4 * standard_error


@pytest.mark.parametrize("rows", [ROWS, pd.DataFrame(ROWS)])
def test_summarise_by_hand(rows):
    table = stats.summarise(rows, ["pruner", "ratio"], "ppl")
    half = 12.706205 * 1.5  # t of one degree of freedom; the standard error of 30 and 33
    assert table.columns.tolist() == ["pruner", "ratio", "mean", "low", "high", "n"]
    assert table.values.tolist()[0] == pytest.approx(["taylor", 0.2, 31.5, 31.5 - half, 31.5 + half, 2])
    assert table[["pruner", "ratio"]].values.tolist()[1:] == [["moreau", 0.2], ["moreau", 0.4]]
    assert table["n"].tolist() == [2, 1, 1]
    assert table[["low", "high"]].isna().all(axis=1).tolist() == [False, True, True]


def test_summarise_by_one_column():
    table = stats.summarise(ROWS, "pruner", "ppl")
    assert table[["pruner", "mean", "n"]].values.tolist() == [["taylor", 31.5, 2], ["moreau", 35.5, 2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, None, "much"])
def test_summarise_names_the_row_without_a_number(bad):
    with pytest.raises(StudyError, match=r"row 4 needs .* finite 'ppl'.*'seed': 7"):
        stats.summarise([*ROWS, {"pruner": "l1", "ratio": 0.2, "seed": 7, "ppl": bad}], "pruner", "ppl")


def test_summarise_names_one_row_of_concatenated_frames():
    frame = pd.concat([pd.DataFrame(ROWS), pd.DataFrame([{**ROWS[0], "ppl": np.nan}])])
    with pytest.raises(StudyError, match="row 4 needs pruner, ratio and a finite 'ppl': {'pruner': 'taylor'"):
        stats.summarise(frame, ["pruner", "ratio"], "ppl")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.summarise([], "pruner", "ppl"), "no rows"),
        (lambda: stats.summarise(ROWS, "prune", "ppl"), "no column prune; they have pruner"),
        (lambda: stats.summarise(ROWS, "pruner", "perplexity"), "no column perplexity"),
        (lambda: stats.summarise(ROWS, [], "ppl"), "at least one column"),
        (lambda: stats.summarise([{"n": 1, "ppl": 2.0}], "n", "ppl"), "none of them mean, low, high, n"),
        (lambda: stats.summarise([*ROWS, {"ppl": 1.0}], "pruner", "ppl"), "row 4 needs pruner and"),
        (lambda: stats.interval([]), "non-empty"),
        (lambda: stats.interval([[1.0, 2.0]]), "1-D"),
        (lambda: stats.interval([1.0, np.nan]), "finite"),
        (lambda: stats.bootstrap_ci([1.0, 2.0], level=95), "level must lie"),
        (lambda: stats.interval([1.0, 2.0], level=0.0), "level must lie"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(StudyError, match=message):
        call()
