"""Intervals, tests and summaries: hand values, closed forms, and error rates under simulation."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

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


@pytest.mark.parametrize("method", [stats.interval, stats.t_interval])
def test_one_value_has_no_interval(method):
    mean, low, high = method([3.0])
    assert mean == 3 and np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize("method", [stats.interval, stats.t_interval])
@pytest.mark.parametrize("n", [2, 3, 7, 8, 20, 130])
@pytest.mark.parametrize("value", [0.1, 0.33])
def test_constant_in_constant_out(method, n, value):
    mean, low, high = method([value] * n)
    assert low == pytest.approx(value) and high == pytest.approx(value)
    assert low <= mean <= high  # an error bar of negative length would stop a plot


@pytest.mark.parametrize("values", [[2.0, 5.0], [4.0, 1.0, 2.0]])
def test_bootstrap_of_two_or_three_values_is_their_range(values):
    assert stats.interval(values) == pytest.approx((np.mean(values), min(values), max(values)))


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


def test_t_interval_by_hand():
    half = 4.302653 / 3**0.5  # the 97.5 % point of t with 2 degrees of freedom, standard deviation 1
    assert stats.t_interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - half, 2 + half))


@pytest.mark.parametrize(
    ("method", "n", "expected"),
    [(quick_bootstrap, 3, 0.75), (quick_bootstrap, 100, 0.95), (stats.t_interval, 3, 0.95)],
)
def test_coverage_is_as_documented(method, n, expected):
    trials = 500
    standard_error = np.sqrt(expected * (1 - expected) / trials)
    assert abs(coverage(method, n, trials) - expected) < 4 * standard_error


def test_permutation_test_by_hand():
    assert stats.paired_permutation_test(np.arange(1, 7), np.zeros(6)) == 2 / 2**6
    # The sum is 7. Of the 64 patterns 1 gives 11 (no minus), 1 gives 9 (minus at the 1), 5 give 7 (minus at
    # one of the 2s), and as many reach -7 or less.
    assert stats.paired_permutation_test([1, 2, 2, 2, 2, -2], np.zeros(6)) == 2 * (1 + 1 + 5) / 2**6
    assert stats.paired_permutation_test(np.ones(6), np.ones(6)) == 1


def test_permutation_test_counts_ties_that_differ_by_rounding():
    # No difference is negative, so the sum is the largest there is; the sign of the 0 is free. Added in
    # another order the same terms give a sum one rounding smaller, which must not make p zero.
    assert stats.paired_permutation_test([0.0, 0.2, 0.9, 0.4, 0.3, 0.1], np.zeros(6)) == 4 / 2**6
    # Terms that cancel leave a sum of 0, or of one rounding of a term; every pattern reaches it.
    assert stats.paired_permutation_test([0.1, 0.2, -0.3, 0.1, 0.2, -0.3], np.zeros(6)) == 1


@pytest.mark.parametrize("n", [6, 12, 20])
def test_permutation_test_is_symmetric_and_ignores_scale(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(size=n) + 0.3
    p = stats.paired_permutation_test(a, b)
    assert 0 < p <= 1
    assert stats.paired_permutation_test(b, a) == p == stats.paired_permutation_test(4 * a, 4 * b)


def test_permutation_test_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(size=9) + 0.5
    reference = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    assert stats.paired_permutation_test(a, b) == pytest.approx(reference.pvalue)


def test_monte_carlo_agrees_with_the_exact_test(monkeypatch):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), rng.normal(size=12) + 0.6
    exact = stats.paired_permutation_test(a, b)
    monkeypatch.setattr(stats, "EXACT_PAIRS", 11)
    estimate = stats.paired_permutation_test(a, b)
    assert estimate != exact
    assert abs(estimate - exact) < 4 * np.sqrt(exact * (1 - exact) / 10_000)


def test_monte_carlo_counts_the_observed_pattern_so_that_p_is_never_zero():
    assert stats.paired_permutation_test(np.arange(1, 41), np.zeros(40), resamples=99) == 1 / 100


@pytest.mark.parametrize(("n", "trials", "level"), [(8, 1500, 12 / 2**8), (14, 600, 50 / 1000)])
def test_permutation_test_is_calibrated_under_the_null(n, trials, level):
    """``level`` is the largest attainable p-value up to 5 %, so the rejection rate for continuous values."""
    rng = np.random.default_rng(n)
    pvalues = [
        stats.paired_permutation_test(rng.normal(size=n), rng.normal(size=n), resamples=999, seed=trial)
        for trial in range(trials)
    ]
    rejected = sum(p <= 0.05 for p in pvalues)
    low, high = scipy.stats.binom(trials, level).ppf([0.0005, 0.9995])
    assert low <= rejected <= high


def test_six_pairs_are_the_least():
    with pytest.raises(StudyError, match=r"no p-value from fewer than 6 seeds \(got 5\)"):
        stats.paired_permutation_test(np.arange(5), np.zeros(5))


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert stats.holm([0.04]) == pytest.approx([0.04])


@pytest.mark.parametrize("seed", range(5))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(seed):
    pvalues = np.random.default_rng(seed).uniform(size=7) ** 3
    adjusted = stats.holm(pvalues)
    assert (pvalues <= adjusted).all() and (adjusted <= np.minimum(7 * pvalues, 1)).all()
    assert (np.diff(adjusted[np.argsort(pvalues)]) >= 0).all()


@pytest.mark.parametrize("rows", [ROWS, pd.DataFrame(ROWS)])
def test_summarise_by_hand(rows):
    table = stats.summarise(rows, ["pruner", "ratio"], "ppl")
    assert table.columns.tolist() == ["pruner", "ratio", "mean", "low", "high", "n"]
    assert table.values.tolist()[0] == pytest.approx(["taylor", 0.2, 31.5, 30, 33, 2])
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
        (lambda: stats.t_interval([1.0, 2.0], level=0.0), "level must lie"),
        (lambda: stats.paired_permutation_test(np.ones(6), np.ones(7)), "6 and 7 values"),
        (lambda: stats.holm([0.1, 1.2]), r"\[0, 1\]"),
        (lambda: stats.holm([0.1, np.nan]), "p-values must be finite"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(StudyError, match=message):
        call()


def test_effect_by_hand():
    assert stats.paired_effect([3.0, 5.0, 4.0], [1.0, 1.0, 1.0]) == pytest.approx(3 / 1)
    assert stats.paired_effect([1.0, 1.0], [1.0, 1.0]) == 0
    assert stats.paired_effect([0.3, 0.4], [0.2, 0.3]) == np.inf
    with pytest.raises(StudyError, match="no effect size from fewer than 2 seeds"):
        stats.paired_effect([1.0], [2.0])
    with pytest.raises(StudyError, match="needs one b for each a"):
        stats.paired_effect([1.0, 2.0], [2.0])


def test_variance_components_of_additive_levels_by_hand():
    """y = a_i + b_j has no rest, and the components are the sample variances of the levels."""
    a, b = np.array([0.0, 1.0, 5.0]), np.array([0.0, 2.0])
    found = stats.variance_components(a[:, None] + b, ["a", "b"])
    assert found == pytest.approx({"a": a.var(ddof=1), "b": b.var(ddof=1), "rest": 0}, abs=1e-12)


@pytest.mark.parametrize("levels", [(6, 4), (5, 3, 4)])
def test_variance_components_are_unbiased(levels):
    rng, names = np.random.default_rng(0), ["a", "b", "c"][: len(levels)]
    true = dict(zip(names, (4.0, 1.0, 0.25))) | {"rest": 0.5}
    trials = []
    for _ in range(3000):
        values = rng.normal(size=levels) * true["rest"] ** 0.5
        for axis, name in enumerate(names):
            shape = [-1 if other == axis else 1 for other in range(len(levels))]
            values = values + rng.normal(size=levels[axis]).reshape(shape) * true[name] ** 0.5
        trials.append(stats.variance_components(values, names))
    for name in [*names, "rest"]:
        found = np.array([trial[name] for trial in trials])
        assert abs(found.mean() - true[name]) < 4 * found.std() / len(found) ** 0.5


def test_variance_components_are_averaged_over_units():
    values = np.random.default_rng(0).normal(size=(7, 3, 4))
    each = [stats.variance_components(unit, ["a", "b"])["a"] for unit in values]
    assert stats.variance_components(values, ["a", "b"])["a"] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("shape", "factors"), [((3,), ["a"]), ((3, 1), ["a", "b"]), ((3,), ["a", "b"]), ((2, 2, 1), ["a", "b", "c"])]
)
def test_variance_components_need_two_levels_of_each_factor(shape, factors):
    with pytest.raises(StudyError, match="factors need an axis of at least two levels each"):
        stats.variance_components(np.zeros(shape), factors)


def test_mcnemar_counts_the_items_that_one_alone_gets_right():
    assert stats.mcnemar("1100", "1100") == 1
    assert stats.mcnemar("1" * 5 + "01", "0" * 5 + "01") == pytest.approx(2 / 2**5)
    assert stats.mcnemar([1, 1, 1, 0], [0, 0, 0, 1]) == pytest.approx(10 / 16)  # 3 of 4, two-sided
    assert stats.mcnemar("01" * 10, "10" * 10) == 1


def test_mcnemar_is_calibrated_under_the_null():
    rng = np.random.default_rng(0)
    values = [stats.mcnemar(*rng.integers(2, size=(2, 60))) for _ in range(2000)]
    assert 0.02 < np.mean(np.array(values) <= 0.05) <= 0.05


@pytest.mark.parametrize(("a", "b"), [("", ""), ("01", "0"), ([0, 2], [0, 1])])
def test_mcnemar_needs_right_or_wrong_for_each_item(a, b):
    with pytest.raises(StudyError, match="needs one 0 or 1 a model for each item"):
        stats.mcnemar(a, b)
