"""Tests between two sets of paired values, and p-values adjusted for their number."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, monte_carlo_test, permutation_test

from ..errors import StudyError
from .checked import finite

MIN_PAIRS = 6
EXACT_PAIRS = 12


def paired_permutation_test(a: ArrayLike, b: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of "``a`` and ``b`` do not differ" by flipping the signs of a - b, shape (n,) each.

    Exact over all 2**n sign patterns for n <= 12. Above that, ``resamples`` random patterns with the observed
    one counted among them, (hits + 1) / (resamples + 1), so that p is never 0 (Phipson and Smyth 2010). The
    smallest exact p is 2**(1 - n): six seeds reach 0.031, so a table of two or more six-seed tests holds
    nothing significant at 5 % after :func:`holm`. Fewer than 6 pairs raise a ``StudyError``.

    Example
    -------
    >>> paired_permutation_test([5, 6, 7, 8, 9, 10], [4, 4, 4, 4, 4, 4])
    0.03125
    """
    difference = _paired_difference(a, b, MIN_PAIRS, "p-value")
    # Patterns that tie with the observed one must count, whatever the order in which their terms were added. SciPy
    # allows for rounding relative to the observed sum, too little where the terms cancel; so it counts a yes or no.
    threshold = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()

    def as_far(values: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(values.sum(axis=axis)) >= threshold

    if difference.size <= EXACT_PAIRS:
        every = {"permutation_type": "samples", "n_resamples": np.inf}
        return float(permutation_test((difference,), as_far, alternative="greater", **every).pvalue)
    # Not permutation_test, whose random patterns are others for the same seed, and which is exact up to 2**n resamples.
    rng = np.random.default_rng(seed)

    def flipped(size: tuple[int, ...]) -> np.ndarray:
        return difference * rng.choice((1, -1), size=size)

    return float(monte_carlo_test(difference, flipped, as_far, alternative="greater", n_resamples=resamples).pvalue)


def mcnemar(a: str | Sequence[int], b: str | Sequence[int]) -> float:
    """Two-sided exact p-value of "two models are right equally often", from their answers to the same items (McNemar
    1947): of the items that exactly one of them gets right, each is as likely to be the first one's.

    ``a``, ``b``: 0 or 1 for each item, shape (items,), or strings of these digits. Without any item that only one gets
    right the value is 1.

    Example
    -------
    >>> mcnemar("1110", "0001")  # three items to one
    0.625
    """
    x, y = (np.array([int(value) for value in answers]) for answers in (a, b))
    if x.size != y.size or x.size == 0 or not set(np.unique([x, y])) <= {0, 1}:
        raise StudyError(f"McNemar's test needs one 0 or 1 a model for each item, not {x.size} and {y.size} values")
    first, second = int(np.sum(x > y)), int(np.sum(y > x))
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def paired_effect(a: ArrayLike, b: ArrayLike) -> float:
    """The mean of a - b over its standard deviation (Cohen's d for pairs), shape (n,) each, at least two pairs.

    Differences that are all equal have an infinite effect, or none where they are zero.

    Example
    -------
    >>> paired_effect([3.0, 5.0, 4.0], [1.0, 1.0, 1.0])
    3.0
    """
    difference = _paired_difference(a, b, at_least=2, what="effect size")
    mean, spread = difference.mean(), difference.std(ddof=1)
    if spread <= 1e-12 * np.abs(difference).max():  # equal but for rounding
        return float(np.sign(mean) * np.inf) if mean else 0.0
    return float(mean / spread)


def holm(pvalues: ArrayLike) -> np.ndarray:
    """Adjusted p-values by Holm's step-down method (1979), shape (m,), in the order given.

    The i-th smallest p is multiplied by m - i + 1, made non-decreasing and cut at 1.

    Example
    -------
    >>> holm([0.5, 0.125, 0.25])
    array([0.5  , 0.375, 0.5  ])
    """
    pvalues = finite(pvalues, "p-values")
    if pvalues.min() < 0 or pvalues.max() > 1:
        raise StudyError(f"p-values must lie in [0, 1], not {pvalues.tolist()}")
    order = np.argsort(pvalues, kind="stable")
    scaled = pvalues[order] * np.arange(pvalues.size, 0, -1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def _paired_difference(a: ArrayLike, b: ArrayLike, at_least: int, what: str) -> np.ndarray:
    a, b = finite(a, "a"), finite(b, "b")
    if a.size != b.size:
        raise StudyError(f"a paired test needs one b for each a, not {a.size} and {b.size} values")
    if a.size < at_least:
        raise StudyError(f"no {what} from fewer than {at_least} seeds (got {a.size})")
    return a - b
