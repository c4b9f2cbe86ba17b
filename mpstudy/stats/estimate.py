"""A measured number with what its interval covers, by the way in which its parts repeat.

Every :class:`Estimate` has a value, a standard error and degrees of freedom, and is read by Student's t. What it
generalises to is what the function that made it resamples:

* :func:`of_mean`: independent values, one a seed.
* :func:`of_strata`: independent values of each of several fixed things, such as the items of each task.
* :func:`.pairs.of_pairs`: a number for each pair of samples. Pairs that share a sample are not independent; the
  samples are.
* :func:`over_windows`: losses of every seed on the same windows of text. Seeds and windows both vary.
* :func:`of_spread`: a standard deviation over seeds, with an interval that is not symmetric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp, inf, isclose, log

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2
from scipy.stats import t as student_t

from ..errors import StudyError
from .checked import check_level, finite

RESAMPLES = 2000
ROUNDING = 1e-12  # values that differ by less, relative to the largest, are equal


@dataclass(frozen=True)
class Estimate:
    """``value`` with its standard error ``se`` (same unit), read by Student's t with ``df`` degrees of freedom.

    ``n`` counts the independent repetitions (seeds or samples). ``se`` is 0 where all of them agree: then the interval
    is the value, and a p-value is 0 or 1. ``log``: read on the log scale, see :meth:`on_log_scale`.

    Example
    -------
    >>> loss = Estimate(value=0.5, se=0.25, df=5, n=6)
    >>> print("{:.3f} {:.3f}".format(*loss.interval()))
    -0.143 1.143
    """

    value: float
    se: float
    df: float
    n: int
    log: bool = False

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(low, high): value -+ t se, which covers the true value with probability ``level``."""
        half = self._quantile(level) * self.se
        if self.log and half:
            return self.value * exp(-half / self.value), self.value * exp(half / self.value)
        return self.value - half, self.value + half

    def detectable(self, power: float = 0.8, level: float = 0.95) -> float:
        """The smallest true distance from a threshold that a test at 1 - ``level`` finds with probability ``power``:
        (t_(1+level)/2 + t_power) se."""
        check_level(power)
        return (self._quantile(level) + float(student_t.ppf(power, self.df))) * self.se

    def p_difference(self, threshold: float = 0.0) -> float:
        """Two-sided p-value of "the true value is ``threshold``"."""
        return float(2 * student_t.sf(abs(self._t(threshold)), self.df))

    def p_equivalence(self, margin: float) -> float:
        """p-value of "the true value lies outside (-``margin``, ``margin``)": a small one shows that it lies within.

        The larger p of two one-sided tests (Schuirmann 1987); on the log scale only the upper margin has one.
        """
        if not margin > 0:
            raise StudyError(f"a margin of equivalence must be positive, not {margin}")
        if self.se == 0:
            return float(abs(self.value) >= margin)
        nearest = -self._t(margin) if self.log else min(-self._t(margin), self._t(-margin))
        return float(student_t.sf(nearest, self.df))

    def times(self, factor: float) -> "Estimate":
        """The same in another unit: value and standard error times ``factor``."""
        if self.log and factor <= 0:
            raise StudyError(f"an estimate on the log scale stays positive: no factor {factor}")
        return replace(self, value=self.value * factor, se=self.se * abs(factor))

    def on_log_scale(self) -> "Estimate":
        """The same, but Student's t read for the logarithm: for means of absolute values and of distances.

        Such a mean is positive, skewed, and small where its standard error is: value -+ t se misses too often
        (|x - y| of 4 to 10 normal samples: 91 to 93 %), value exp(-+ t se / value) does not (94 to 95 %). The interval
        never holds 0, which therefore says nothing; a threshold must be positive.
        """
        if self.value < 0 or (self.value == 0 and self.se > 0):
            raise StudyError(f"only a positive estimate has a log scale, not {self.value}")
        return replace(self, log=True)

    def row(self) -> dict[str, float]:
        """For a table: estimate, se, df, the 95 % interval low and high, n."""
        low, high = self.interval()
        return {"estimate": self.value, "se": self.se, "df": self.df, "low": low, "high": high, "n": self.n}

    def contrast(self, name: str, unit: str, *, tokens: int | None = None, items: int | None = None) -> dict:
        """A row of the table ``contrasts``, by which claims are judged: :meth:`row` with the ``name`` of the contrast,
        whether it is read on the ``log`` scale, how many ``tokens`` a text or ``items`` were evaluated, and the
        ``unit``.
        """
        return {"contrast": name} | self.row() | {"log": self.log, "tokens": tokens, "items": items, "unit": unit}

    def _quantile(self, level: float) -> float:
        check_level(level)
        return float(student_t.ppf((1 + level) / 2, self.df))

    def _t(self, threshold: float) -> float:
        if self.log and threshold <= 0:
            raise StudyError(f"an estimate on the log scale has positive thresholds, not {threshold}")
        if self.se == 0:
            return 0.0 if isclose(self.value, threshold, rel_tol=ROUNDING) else inf
        return log(self.value / threshold) * self.value / self.se if self.log else (self.value - threshold) / self.se


def of_mean(values: ArrayLike) -> Estimate:
    """The mean of independent ``values``, shape (n,), n >= 2, with n - 1 degrees of freedom (Student 1908).

    Example
    -------
    >>> of_mean([1.0, 3.0, 5.0, 7.0]).value
    4.0
    """
    values = _several(values)
    return estimated(values.mean(), values.var(ddof=1) / values.size, values)


def of_strata(samples: Sequence[ArrayLike]) -> Estimate:
    """The mean of the means of ``samples``, one array (n,) a stratum with n >= 2 independent values, each its own n.

    The strata, such as tasks, are fixed and weigh the same: se^2 is the sum of their squared standard errors over their
    number squared, with Welch's degrees of freedom (Satterthwaite 1946). One stratum gives :func:`of_mean`. ``n``
    counts all values.

    Example
    -------
    >>> of_strata([[1.0, 3.0], [4.0, 6.0, 8.0]]).value
    4.0
    """
    means = [of_mean(values) for values in samples]
    if not means:
        raise StudyError("no samples: at least one is needed")
    parts = np.array([mean.se**2 for mean in means])
    n, df = sum(mean.n for mean in means), float(sum(mean.df for mean in means))
    if total := parts.sum():
        df = float(total**2 / sum(part**2 / mean.df for part, mean in zip(parts, means)))
    return Estimate(float(np.mean([mean.value for mean in means])), float(np.sqrt(total)) / len(means), df, n)


def over_windows(tables: Sequence[ArrayLike], of: Callable[[np.ndarray], np.ndarray] = np.positive) -> Estimate:
    """The mean over seeds of ``of`` (the seed's mean loss), where all seeds are measured on the same windows of text.

    ``tables``: one array a text, shape (seeds, windows), the same seeds in every row. A seed's mean is over the windows
    of each text, then over the texts, which are fixed and weigh the same. Several quantities of a window may stand in a
    third axis for ``of`` to reduce.

    The standard error counts seeds and windows as drawn, by resampling both together (pigeonhole bootstrap: McCullagh
    2000, Owen 2007), the seeds' part times n / (n - 1); Student with seeds - 1 degrees of freedom. An interaction of
    seed and window counts up to three times, so that the interval is too wide (97 to 100 % where windows matter more
    than seeds) rather than too narrow. The same input gives the same result.

    With ``of=np.abs`` the estimand is the mean absolute value on texts *of this many windows*, drawn like these: their
    noise adds to it, as sqrt(seeds' variance + text's variance) does. Two texts of 80 windows with a standard deviation
    of 0.02 add 7 % where seeds differ by 0.004, and 0.1 % at 0.03; the true value on endless text may even be 0. Read
    it by :meth:`Estimate.on_log_scale`.

    Example
    -------
    >>> over_windows([[[1.0, 3.0], [2.0, 4.0]]]).value
    2.5
    """
    texts = _texts(tables)
    seeds = len(texts[0])
    means = of(np.mean([text.mean(axis=1) for text in texts], axis=0))
    drawn = [np.tensordot(_draws(text.shape[1], stream), text, axes=(1, 1)) for stream, text in enumerate(texts, 1)]
    resampled = (of(np.mean(drawn, axis=0)) * _draws(seeds, 0)).sum(axis=1)
    missing = means.var() / seeds / (seeds - 1)  # of the seeds' part, which the bootstrap gives times (n - 1) / n
    return estimated(means.mean(), resampled.var(ddof=1) + missing, np.concatenate([t.ravel() for t in texts]), seeds)


def of_losses(ours: Sequence[Sequence[ArrayLike]], theirs: Sequence[Sequence[ArrayLike]]) -> Estimate:
    """100 x the difference of log-perplexity, ``ours`` minus ``theirs``: about per cent of perplexity.

    Both: for each seed, in the same order, one array (windows,) of nats per token a text, on the same windows. Seeds
    and windows count as drawn (:func:`over_windows`).

    Example
    -------
    >>> of_losses([[[3.5, 3.0]], [[4.0, 3.5]]], [[[3.0, 2.5]], [[3.0, 2.5]]]).value
    75.0
    """
    texts = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    return over_windows([np.array(mine) - np.array(other) for mine, other in texts]).times(100)


def of_spread(values: ArrayLike) -> tuple[float, float, float]:
    """(sd, low, high): the standard deviation of ``values``, shape (n,), n >= 2, with its 95 % interval for normal
    values (chi-square).

    Example
    -------
    >>> print("{:.2f} [{:.2f}, {:.2f}]".format(*of_spread([1.0, 3.0, 5.0, 7.0])))
    2.58 [1.46, 9.63]
    """
    values = _several(values)
    df = values.size - 1
    sd = 0.0 if _equal(values) else float(values.std(ddof=1))
    high, low = chi2.ppf([0.025, 0.975], df)
    return sd, sd * float(np.sqrt(df / low)), sd * float(np.sqrt(df / high))


def estimated(value: float, variance: float, values: np.ndarray, n: int | None = None) -> Estimate:
    """``value`` with the square root of its ``variance``, or with no error where all ``values``, (any,), are equal, and
    one degree of freedom less than the ``n`` independent ones (default: all values).

    Example
    -------
    >>> estimated(2.0, 0.25, np.array([1.0, 3.0])).se
    0.5
    """
    n = n or values.size
    se = 0.0 if _equal(values) else float(np.sqrt(variance))
    return Estimate(float(value), se, n - 1, n)


def _equal(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def _several(values: ArrayLike) -> np.ndarray:
    values = finite(values, "values")
    if values.size < 2:
        raise StudyError("one value has no standard error: at least two are needed")
    return values


def _texts(tables: Sequence[ArrayLike]) -> list[np.ndarray]:
    texts = [np.asarray(table, dtype=np.float64) for table in tables]
    shapes = [text.shape for text in texts]
    if not texts or any(len(shape) not in (2, 3) or min(shape[:2]) < 2 for shape in shapes):
        raise StudyError(f"each text needs at least two seeds and two windows, shape (seeds, windows), not {shapes}")
    if len({(shape[0], *shape[2:]) for shape in shapes}) > 1:
        raise StudyError(f"every text needs the same seeds, not shapes {shapes}")
    if not all(np.isfinite(text).all() for text in texts):
        raise StudyError("losses of windows must be finite")
    return texts


@lru_cache(maxsize=16)
def _draws(size: int, stream: int) -> np.ndarray:
    """The share of each of ``size`` things in resamples of as many, shape (RESAMPLES, size); a stream has its own."""
    counts = np.random.default_rng([size, stream]).multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return counts / size
