"""How often each interval, as the study uses it, contains the true value: at least 93 % at every size in the report.

``TRIALS`` simulations with a fixed generator: a true coverage of 95 % is seen within one percentage point.
"""

import numpy as np
import pytest
from scipy.stats import foldnorm

from mpstudy import stats

TRIALS = 2000
UNITS, REMOVED = 200, 40
IMPORTANCE = np.random.default_rng(99).normal(size=UNITS)


def coverage(interval, draw, true, trials=TRIALS):
    """``interval`` gives (low, high) for what ``draw(rng)`` gives."""
    rng = np.random.default_rng(0)
    intervals = np.array([interval(draw(rng)) for _ in range(trials)])
    return np.mean((intervals[:, 0] <= true) & (true <= intervals[:, 1]))


def overlaps(rng, samples, noise):
    """Jaccard indices of the masks that ``samples`` noisy rankings of the same units give."""
    scores = IMPORTANCE + noise * rng.normal(size=(samples, UNITS))
    masks = np.zeros((samples, UNITS))
    np.put_along_axis(masks, np.argsort(scores, axis=1)[:, :REMOVED], 1, axis=1)
    both = masks @ masks.T
    return both / (2 * REMOVED - both)


def losses(rng, seeds, windows, spread, mean=0.0):
    """Two texts of paired differences of losses in nats: seeds, windows, and both together vary."""
    of_seed = mean + spread * rng.normal(size=(seeds, 1))
    return [of_seed + 0.014 * (rng.normal(size=windows) + rng.normal(size=(seeds, windows))) for _ in range(2)]


@pytest.mark.parametrize("n", [2, 4, 6, 10])
def test_the_mean_over_seeds(n):
    assert coverage(lambda values: stats.interval(values)[1:], lambda rng: rng.normal(size=n), 0) >= 0.93


@pytest.mark.parametrize("n", [4, 6, 10])
def test_a_mean_absolute_value_over_seeds(n):
    def interval(values):
        return stats.of_mean(np.abs(values)).on_log_scale().interval()

    assert coverage(interval, lambda rng: rng.normal(size=n), np.sqrt(2 / np.pi)) >= 0.93


@pytest.mark.parametrize("n", [4, 6, 10])
def test_the_spread_over_seeds(n):
    assert coverage(lambda values: stats.of_spread(values)[1:], lambda rng: rng.normal(size=n), 1) >= 0.93


@pytest.mark.parametrize("noise", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("n", [4, 6, 10])
def test_the_overlap_of_masks_over_pairs_of_samples(n, noise):
    many = overlaps(np.random.default_rng(1), 1500, noise)
    true = many[np.triu_indices(1500, 1)].mean()
    found = coverage(lambda table: stats.of_pairs(table).interval(), lambda rng: overlaps(rng, n, noise), true, 1000)
    assert found >= 0.93


@pytest.mark.parametrize("n", [4, 6, 10])
def test_the_distance_over_pairs_of_samples(n):
    def interval(values):
        return stats.of_pairs(np.abs(values[:, None] - values)).on_log_scale().interval()

    assert coverage(interval, lambda rng: rng.normal(size=n), 2 / np.sqrt(np.pi)) >= 0.93


@pytest.mark.parametrize("spread", [0.004, 0.03])
@pytest.mark.parametrize(("seeds", "windows"), [(6, 80), (6, 160), (4, 40)])
def test_the_loss_over_seeds_and_windows(seeds, windows, spread):
    def interval(tables):
        return stats.over_windows(tables).interval()

    assert coverage(interval, lambda rng: losses(rng, seeds, windows, spread), 0, 700) >= 0.93


@pytest.mark.parametrize("spread", [0.004, 0.03])
@pytest.mark.parametrize(("seeds", "windows"), [(6, 80), (6, 160), (4, 40)])
def test_the_absolute_loss_over_seeds_and_windows(seeds, windows, spread):
    """The estimand of the docstring, on texts of as many windows; and that on endless text, at these sizes."""

    def interval(tables):
        return stats.over_windows(tables, of=np.abs).on_log_scale().interval()

    for noise in (0.014**2 * 2 / (2 * windows), 0):
        sd = np.sqrt(spread**2 + noise)
        true = foldnorm.mean(0.002 / sd, scale=sd)
        assert coverage(interval, lambda rng: losses(rng, seeds, windows, spread, 0.002), true, 700) >= 0.93


def answers(rng, seeds, tasks=7, items=200):
    """Points of accuracy between two models, -100, 0 or 100 an item; every eighth answer changes with the seed."""
    shared = rng.choice([-100, 0, 100], p=[0.1, 0.8, 0.1], size=(tasks, 1, items))
    own = rng.choice([-100, 0, 100], p=[0.1, 0.8, 0.1], size=(tasks, seeds, items))
    return np.where(rng.random(size=own.shape) < 0.125, own, shared)


def test_the_average_of_tasks_over_the_items_of_one_model():
    found = coverage(lambda points: stats.of_strata(points[:, 0]).interval(), lambda rng: answers(rng, 1), 0)
    assert found >= 0.93


@pytest.mark.slow
def test_the_average_of_tasks_over_three_samples_and_the_items():
    assert coverage(lambda points: stats.over_windows(points).interval(), lambda rng: answers(rng, 3), 0, 700) >= 0.93


@pytest.mark.parametrize("spread", [0.004, 0.03])
def test_the_loss_of_one_text_over_three_samples_and_its_windows(spread):
    def interval(tables):
        return stats.over_windows(tables[:1]).interval()

    assert coverage(interval, lambda rng: losses(rng, 3, 40, spread), 0, 700) >= 0.93
