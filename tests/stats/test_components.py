"""Variance components: closed forms, and unbiasedness under simulation."""

import numpy as np
import pytest

from mpstudy import stats
from mpstudy.errors import StudyError


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


def test_standard_deviations_are_roots_and_a_negative_component_is_zero():
    values = np.random.default_rng(3).normal(size=(3, 4)) + 9 * np.arange(4)
    variances = stats.variance_components(values, ["a", "b"])
    assert variances["a"] < 0 < variances["b"]
    found = stats.component_sds(values, ["a", "b"])
    assert found["a"] == 0
    assert [found[name] ** 2 for name in ("b", "rest")] == pytest.approx([variances["b"], variances["rest"]])
