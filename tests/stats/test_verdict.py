"""Verdicts: each test's side and p-value, Holm's family, and how often a verdict is wrong."""

import numpy as np
import pytest

from mpstudy import stats
from mpstudy.errors import StudyError


def of(value, se=1.0):
    return stats.Estimate(value, se, 5, 6)


@pytest.mark.parametrize(
    ("value", "test", "margin", "verdict"),
    [
        (5.0, "above", 1.0, "supported"),
        (-5.0, "above", 1.0, "refuted"),
        (2.0, "above", 1.0, "not resolved"),
        (-5.0, "below", 1.0, "supported"),
        (5.0, "below", 1.0, "refuted"),
        (0.1, "equivalent", 3.0, "supported"),
        (-0.1, "equivalent", 3.0, "supported"),
        (0.1, "equivalent", 1.0, "not resolved"),
        (7.0, "equivalent", 3.0, "refuted"),
        (-7.0, "equivalent", 3.0, "refuted"),
        (4.0, "equivalent", 3.0, "not resolved"),
        (3.0, "equivalent", 3.0, "not resolved"),
    ],
)
def test_one_claim(value, test, margin, verdict):
    (found,) = stats.judge([(of(value), test, margin)])
    assert found.verdict == verdict and found.p == found.p_holm
    assert found.detectable == of(value).detectable()


def test_the_p_values_are_those_of_the_estimate():
    claims = [(of(2.0), "above", 1.0), (of(0.5), "equivalent", 3.0), (of(-4.0), "equivalent", 3.0)]
    expected = [of(2.0).p_difference(1.0), of(0.5).p_equivalence(3.0), of(-4.0).p_difference(-3.0)]
    assert [found.p for found in stats.judge(claims)] == pytest.approx(expected)


def test_a_family_is_adjusted_by_holm():
    claims = [(of(3.0), "above", 0.0), (of(9.0), "above", 0.0), (of(-3.1), "below", 0.0)]
    found = stats.judge(claims)
    assert [verdict.p_holm for verdict in found] == pytest.approx(stats.holm([verdict.p for verdict in found]))
    assert [verdict.verdict for verdict in found] == ["not resolved", "supported", "not resolved"]
    assert stats.judge(claims[:1])[0].verdict == "supported"


def test_no_verdict_without_a_known_test():
    with pytest.raises(StudyError, match="tested as above, below, equivalent, not 'better'"):
        stats.judge([(of(1.0), "better", 0.0)])


def test_a_family_with_a_wrong_verdict_is_as_rare_as_promised():
    """True values on their margins: wrong are all verdicts on "above" and "below", and support for "equivalent"."""
    rng, trials, wrong = np.random.default_rng(0), 1500, 0
    tests = ["above", "above", "below", "equivalent", "equivalent"]
    for values in rng.normal(loc=0.5, size=(trials, len(tests), 6)):
        found = stats.judge([(stats.of_mean(value), test, 0.5) for value, test in zip(values, tests)])
        verdicts = [verdict.verdict for verdict in found]
        wrong += set(verdicts[:3]) != {"not resolved"} or "supported" in verdicts[3:]
    assert 0.02 < wrong / trials < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
