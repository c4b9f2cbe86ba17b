"""Estimates: closed forms, agreement with SciPy, and what cannot be estimated."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from mpstudy import stats
from mpstudy.errors import StudyError

VALUES = np.array([0.3, -0.1, 0.8, 0.4, 1.1, 0.2])
LOSS = stats.Estimate(value=0.5, se=0.25, df=5, n=6)


def two_way(seed=0, seeds=6, windows=80, texts=2):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(seeds, 1)) + rng.normal(size=windows) for _ in range(texts)]


def check_same(one, other):
    assert one.row() == pytest.approx(other.row())


@pytest.mark.parametrize("threshold", [0.0, 0.2, -1.0])
def test_the_mean_is_students_test(threshold):
    estimate, reference = stats.of_mean(VALUES), scipy.stats.ttest_1samp(VALUES, threshold)
    assert estimate.p_difference(threshold) == pytest.approx(reference.pvalue)
    assert estimate.interval(0.9) == pytest.approx(tuple(reference.confidence_interval(0.9)))
    assert (estimate.n, estimate.df) == (6, 5)


def test_the_interval_holds_what_the_test_does_not_reject():
    for estimate in (LOSS, LOSS.on_log_scale()):
        assert [estimate.p_difference(bound) for bound in estimate.interval(0.9)] == pytest.approx([0.1, 0.1])


def test_equivalence_by_hand():
    # (1 - 0.5) / 0.25 = 2 standard errors below the upper margin, 6 above the lower one; t of 5 is 2.015 at 95 %
    assert LOSS.p_equivalence(1.0) == pytest.approx(0.0510, abs=5e-5)
    assert LOSS.p_equivalence(0.5 + 0.25 * 2.015048) == pytest.approx(0.05, abs=1e-6)
    assert LOSS.times(-1).p_equivalence(1.0) == LOSS.p_equivalence(1.0)
    assert LOSS.p_equivalence(0.5) == 0.5 < LOSS.p_equivalence(0.4)


def test_equivalence_at_5_percent_is_the_90_percent_interval_within_the_margins():
    for margin in np.linspace(0.1, 2, 30):
        low, high = LOSS.interval(0.9)
        assert (LOSS.p_equivalence(margin) < 0.05) == (-margin < low and high < margin)


def test_strata_by_hand():
    # means 2 and 6; squared standard errors 2 / 2 = 1 and 4 / 3, of 1 and 2 degrees of freedom
    found = stats.of_strata([[1.0, 3.0], [4.0, 6.0, 8.0]])
    assert (found.value, found.n) == (4.0, 5)
    assert found.se == pytest.approx(np.sqrt(1 + 4 / 3) / 2)
    assert found.df == pytest.approx((1 + 4 / 3) ** 2 / (1 / 1 + (4 / 3) ** 2 / 2))


def test_the_difference_of_two_strata_is_welchs_test():
    one, two = VALUES, np.array([1.3, 0.4, 2.2, 0.9])
    found = stats.of_strata([one, -two]).times(2)
    reference = scipy.stats.ttest_ind(one, two, equal_var=False)
    assert found.interval() == pytest.approx(tuple(reference.confidence_interval()))
    assert found.p_difference() == pytest.approx(reference.pvalue)


def test_one_stratum_is_a_mean_and_equal_values_are_known():
    check_same(stats.of_strata([VALUES]), stats.of_mean(VALUES))
    assert stats.of_strata([[1, 1, 1], [3, 3]]).row() == {"estimate": 2, "se": 0, "df": 3, "low": 2, "high": 2, "n": 5}
    for samples in ([], [VALUES, [1.0]]):
        with pytest.raises(StudyError, match="at least"):
            stats.of_strata(samples)


@pytest.mark.parametrize("df", [3, 5, 9, 40])
def test_the_detectable_difference_is_found_with_its_power(df):
    estimate = stats.Estimate(0.0, 2.0, df, df + 1)
    noncentral = scipy.stats.nct(df, estimate.detectable(power=0.8) / estimate.se)
    assert noncentral.sf(scipy.stats.t.ppf(0.975, df)) == pytest.approx(0.8, abs=0.02)


def test_other_units():
    percent = LOSS.times(-100)
    assert percent.interval() == pytest.approx(tuple(-100 * bound for bound in LOSS.interval()[::-1]))
    assert percent.detectable() == pytest.approx(100 * LOSS.detectable())
    assert LOSS.on_log_scale().times(100).interval() == pytest.approx(
        tuple(100 * bound for bound in LOSS.on_log_scale().interval())
    )


def test_a_row_has_the_95_percent_interval():
    half = 2.570582 * 0.25
    assert LOSS.row() == pytest.approx(
        {"estimate": 0.5, "se": 0.25, "df": 5, "low": 0.5 - half, "high": 0.5 + half, "n": 6}
    )


def test_the_log_scale_by_hand():
    factor = np.exp(2.570582 * 0.5)  # the relative standard error is 0.25 / 0.5
    read = LOSS.on_log_scale()
    assert read.interval() == pytest.approx((0.5 / factor, 0.5 * factor))
    assert read.p_equivalence(0.5 * np.exp(2.015048 * 0.5)) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    "estimate",
    [
        stats.of_mean([0.1] * 3),
        stats.of_pairs(np.full((4, 4), 0.1)),
        stats.over_windows([np.full((3, 7), 0.1)] * 2),
        stats.of_mean([0.1] * 3).on_log_scale(),
    ],
)
def test_values_that_agree_leave_no_doubt(estimate):
    assert estimate.se == 0 and estimate.interval() == (estimate.value, estimate.value)
    assert estimate.value == pytest.approx(0.1) and estimate.detectable() == 0
    assert [estimate.p_difference(threshold) for threshold in (0.1, 0.2, 0.05)] == [1, 0, 0]
    assert [estimate.p_equivalence(margin) for margin in (0.2, 0.05)] == [0, 1]


def test_pairs_of_an_additive_kernel_are_the_mean():
    pairs = stats.of_pairs(VALUES[:, None] + VALUES)
    check_same(pairs, stats.of_mean(VALUES).times(2))


def test_pairs_leave_out_one_sample_at_a_time():
    values = {(i, j): abs(VALUES[i] - VALUES[j]) ** 1.5 for i, j in combinations(range(6), 2)}
    left = [np.mean([value for pair, value in values.items() if out not in pair]) for out in range(6)]
    estimate = stats.of_pairs(values)
    assert estimate.value == pytest.approx(np.mean(list(values.values())))
    assert estimate.se == pytest.approx(np.sqrt(5 / 6 * np.sum((left - np.mean(left)) ** 2)))


def test_differences_of_pairs_are_taken_pair_by_pair():
    ours = {(i, j): VALUES[i] + VALUES[j] for i, j in combinations(range(6), 2)}
    theirs = dict(reversed([(pair, value / 4) for pair, value in ours.items()]))
    check_same(stats.of_pair_differences(ours, theirs), stats.of_pairs(ours).times(0.75))
    assert stats.of_pair_differences(ours, ours).row() == stats.of_pairs(dict.fromkeys(ours, 0.0)).row()


def test_pairs_in_any_order_and_form():
    table = np.abs(VALUES[:, None] - VALUES)
    np.fill_diagonal(table, np.nan)
    named = {(f"s{j}", f"s{i}"): table[i, j] for i, j in combinations(range(6), 2)}
    shuffled = np.random.default_rng(0).permutation(6)
    for same in (named, table[np.ix_(shuffled, shuffled)]):
        check_same(stats.of_pairs(same), stats.of_pairs(table))
    assert np.isnan(np.diag(table)).all()  # the caller's array is as it was


def test_windows_of_additive_data_have_the_known_error():
    """y = a_i + b_j: the seeds' part a, common to both texts, and a windows' part a text, each averaged over texts."""
    rng = np.random.default_rng(0)
    seeds, windows = rng.normal(size=6), [rng.normal(size=80), 3 * rng.normal(size=160)]
    estimate = stats.over_windows([seeds[:, None] + text for text in windows])
    parts = [seeds.var(ddof=1) / 6, windows[0].var() / 80 / 4, windows[1].var() / 160 / 4]
    assert estimate.value == pytest.approx(seeds.mean() + np.mean([text.mean() for text in windows]))
    assert estimate.se == pytest.approx(np.sqrt(sum(parts)), rel=0.04)  # 2000 resamples: 1.6 %
    assert (estimate.df, estimate.n) == (5, 6)


def test_windows_alike_leave_students_error_of_the_seeds():
    tables = [np.repeat(VALUES[:, None], 50, axis=1)] * 2
    assert stats.over_windows(tables).se == pytest.approx(stats.of_mean(VALUES).se, rel=0.04)
    absolute = stats.over_windows(tables, of=np.abs)
    assert absolute.value == pytest.approx(np.abs(VALUES).mean())
    assert absolute.se == pytest.approx(stats.of_mean(np.abs(VALUES)).se, rel=0.04)


def test_windows_repeat_and_move_with_their_unit():
    once = stats.over_windows(two_way())
    assert stats.over_windows(two_way()) == once
    moved = stats.over_windows([3 * table + 1 for table in two_way()])
    check_same(moved, replace(once, value=3 * once.value + 1, se=3 * once.se))


def test_several_quantities_of_a_window():
    """The third axis: the difference of two absolute means."""
    first, second = two_way(1), two_way(2)
    both = [np.stack(pair, axis=-1) for pair in zip(first, second)]
    estimate = stats.over_windows(both, of=lambda mean: np.abs(mean[..., 0]) - np.abs(mean[..., 1]))
    of_seed = [np.abs(np.mean([table.mean(axis=1) for table in tables], axis=0)) for tables in (first, second)]
    assert estimate.value == pytest.approx(np.mean(of_seed[0] - of_seed[1]))
    swapped = stats.over_windows(both, of=lambda mean: np.abs(mean[..., 1]) - np.abs(mean[..., 0]))
    check_same(swapped, estimate.times(-1))


def test_the_spread_by_hand():
    sd, low, high = stats.of_spread([1.0, 2.0, 3.0])  # chi-square of two degrees of freedom: -2 log of the tail
    assert sd == pytest.approx(1)
    assert low == pytest.approx(np.sqrt(2 / (-2 * np.log(0.025))))
    assert high == pytest.approx(np.sqrt(2 / (-2 * np.log(0.975))))
    assert stats.of_spread([0.1] * 3) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.of_mean([1.0]), "one value has no standard error"),
        (lambda: stats.of_spread([1.0]), "one value has no standard error"),
        (lambda: stats.of_mean([1.0, np.nan]), "finite"),
        (lambda: stats.of_pairs({(0, 1): 1.0}), "at least three samples"),
        (lambda: stats.of_pairs({}), "at least three samples"),
        (lambda: stats.of_pairs({(0, 1): 1.0, (1, 2): 1.0}), "every pair of samples needs one finite number"),
        (lambda: stats.of_pairs({(0, 1): 1.0, (1, 0): 1.0}), r"not \(1, 0\) also"),
        (lambda: stats.of_pairs({(0, 0): 1.0}), r"not \(0, 0\) also"),
        (lambda: stats.of_pairs(np.arange(9.0).reshape(3, 3)), "the same in both orders"),
        (lambda: stats.of_pairs(np.ones((3, 4))), r"not \(3, 4\)"),
        (lambda: stats.of_pair_differences({(0, 1): 1.0}, {(0, 2): 1.0}), "the same pairs of samples"),
        (lambda: stats.over_windows([]), "at least two seeds and two windows"),
        (lambda: stats.over_windows([np.ones((1, 5))]), "at least two seeds and two windows"),
        (lambda: stats.over_windows([np.ones((5, 1))]), "at least two seeds and two windows"),
        (lambda: stats.over_windows([np.ones((3, 5)), np.ones((4, 5))]), "the same seeds"),
        (lambda: stats.over_windows([np.full((3, 5), np.inf)]), "finite"),
        (lambda: LOSS.interval(95), "level must lie"),
        (lambda: LOSS.detectable(power=1), "level must lie"),
        (lambda: LOSS.p_equivalence(0), "margin of equivalence must be positive"),
        (lambda: LOSS.times(-1).on_log_scale(), "only a positive estimate"),
        (lambda: LOSS.on_log_scale().times(-1), "no factor -1"),
        (lambda: LOSS.on_log_scale().p_difference(), "positive thresholds"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(StudyError, match=message):
        call()
