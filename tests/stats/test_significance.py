"""Paired tests and Holm's method: hand values, closed forms, and error rates under the null."""

import numpy as np
import pytest
import scipy.stats

from mpstudy import stats
from mpstudy.errors import StudyError


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
    monkeypatch.setattr("mpstudy.stats.significance.EXACT_PAIRS", 11)
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


def test_effect_by_hand():
    assert stats.paired_effect([3.0, 5.0, 4.0], [1.0, 1.0, 1.0]) == pytest.approx(3 / 1)
    assert stats.paired_effect([1.0, 1.0], [1.0, 1.0]) == 0
    assert stats.paired_effect([0.3, 0.4], [0.2, 0.3]) == np.inf
    with pytest.raises(StudyError, match="no effect size from fewer than 2 seeds"):
        stats.paired_effect([1.0], [2.0])
    with pytest.raises(StudyError, match="needs one b for each a"):
        stats.paired_effect([1.0, 2.0], [2.0])


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.paired_permutation_test(np.ones(6), np.ones(7)), "6 and 7 values"),
        (lambda: stats.holm([0.1, 1.2]), r"\[0, 1\]"),
        (lambda: stats.holm([0.1, np.nan]), "p-values must be finite"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(StudyError, match=message):
        call()
