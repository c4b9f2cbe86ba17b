"""Intervals over seeds, paired tests and summaries.

One rule for the whole study: :func:`interval` is the interval that every figure and table shows, the mean
with a 95 % percentile bootstrap over seeds. With few seeds it is too narrow, and by a known amount. For
n <= 3 it is simply the range of the values (a resample holds nothing but the smallest one with probability
n**-n > 2.5 %), which contains the centre of a symmetric distribution with probability 1 - 2**(1 - n): 50 %
for two seeds, 75 % for three. Read it there as "the values lay between". :func:`t_interval` keeps its 95 %
for normal values at any n >= 2, and pays with width (three seeds: mean +- 2.5 standard deviations).

Values are finite numbers; a NaN or infinity raises a ``StudyError`` instead of travelling into a figure.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap, monte_carlo_test, permutation_test
from scipy.stats import t as student_t

from .errors import StudyError

MIN_PAIRS = 6
EXACT_PAIRS = 12
SUMMARY = ("mean", "low", "high", "n")


def interval(values: ArrayLike) -> tuple[float, float, float]:
    """(mean, low, high) as the study shows it everywhere: the 95 % percentile bootstrap; see the module.

    Example
    -------
    >>> interval([2.0, 4.0, 9.0])
    (5.0, 2.0, 9.0)
    """
    return bootstrap_ci(values)


def bootstrap_ci(
    values: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0, statistic: Callable = np.mean
) -> tuple[float, float, float]:
    """(statistic, low, high) by the percentile bootstrap (Efron 1979) of ``values``, shape (n,).

    ``statistic`` reduces an array along ``axis=-1``, as ``np.mean`` and ``np.median`` do. A single value has
    no interval: (value, nan, nan). The same arguments give the same result.

    Example
    -------
    >>> bootstrap_ci([1.0, 2.0, 3.0, 4.0, 90.0], statistic=np.median)
    (3.0, 1.0, 90.0)
    """
    values = _finite(values, "values")
    _check_level(level)
    estimate = float(statistic(values, axis=-1))
    if values.size == 1:
        return estimate, np.nan, np.nan
    drawn = bootstrap((values,), statistic, n_resamples=resamples, method="percentile", vectorized=True, rng=seed)
    # Not SciPy's own interval: its weights (1 - g) x + g y miss x by a rounding where x = y, so that two values of 0.33
    # get low > high. NumPy's x + g (y - x) cannot, and the committed intervals are NumPy's to the last bit.
    low, high = np.quantile(drawn.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return estimate, float(low), float(high)


def t_interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t for ``values``, shape (n,); a single value gives (value, nan, nan).

    Example
    -------
    >>> mean, low, high = t_interval([1.0, 2.0, 3.0])
    >>> print(f"{mean:.0f} [{low:.3f}, {high:.3f}]")
    2 [-0.484, 4.484]
    """
    values = _finite(values, "values")
    _check_level(level)
    mean = float(values.mean())
    if values.size == 1:
        return mean, np.nan, np.nan
    half = student_t.ppf((1 + level) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return mean, float(mean - half), float(mean + half)


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


def variance_components(values: ArrayLike, factors: Sequence[str]) -> dict[str, float]:
    """Variance of a measurement by where it comes from, for a full crossing of random factors.

    ``values``: shape (levels of the first factor, levels of the second, ...), one measurement a cell. The components
    of the main effects and of the ``rest`` (all interactions and the error) are estimated by the expected mean squares
    of the balanced analysis of variance (Searle, Casella and McCulloch 1992, chapter 4): unbiased, so that a component
    near zero may come out negative. Extra leading axes are averaged over: shape (units, ...) gives mean components.

    Example
    -------
    >>> variance_components([[0.0, 2.0], [4.0, 6.0]], ["seed", "noise"])  # 4 i + 2 j
    {'seed': 8.0, 'noise': 2.0, 'rest': 0.0}
    """
    values, count = np.asarray(values, dtype=np.float64), len(factors)
    levels = values.shape[values.ndim - count :]
    if count < 2 or values.ndim < count or min(levels) < 2:
        raise StudyError(f"{count} factors need an axis of at least two levels each, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise StudyError("variance components need finite values")
    axes = tuple(range(values.ndim - count, values.ndim))
    centred = values - values.mean(axis=axes, keepdims=True)
    left, cells, squares = centred, np.prod(levels), {}
    for factor, axis in zip(factors, axes):
        effect = centred.mean(axis=tuple(other for other in axes if other != axis), keepdims=True)
        squares[factor] = cells / values.shape[axis] * (effect**2).sum(axis=axes) / (values.shape[axis] - 1)
        left = left - effect
    freedom = cells - 1 - sum(level - 1 for level in levels)
    rest = (left**2).sum(axis=axes) / freedom
    found = {f: (squares[f] - rest) * values.shape[axis] / cells for f, axis in zip(factors, axes)}
    return {name: float(np.mean(value)) for name, value in (found | {"rest": rest}).items()}


def holm(pvalues: ArrayLike) -> np.ndarray:
    """Adjusted p-values by Holm's step-down method (1979), shape (m,), in the order given.

    The i-th smallest p is multiplied by m - i + 1, made non-decreasing and cut at 1.

    Example
    -------
    >>> holm([0.5, 0.125, 0.25])
    array([0.5  , 0.375, 0.5  ])
    """
    pvalues = _finite(pvalues, "p-values")
    if pvalues.min() < 0 or pvalues.max() > 1:
        raise StudyError(f"p-values must lie in [0, 1], not {pvalues.tolist()}")
    order = np.argsort(pvalues, kind="stable")
    scaled = pvalues[order] * np.arange(pvalues.size, 0, -1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def summarise(rows: pd.DataFrame | Iterable[dict], by: str | Sequence[str], value: str) -> pd.DataFrame:
    """One row a group: the columns ``by``, then mean, low, high (:func:`interval`) and n of column ``value``.

    ``rows`` is tidy, one measurement a row. Groups come in the order of their first row. A missing column, or
    a row with an empty ``by`` cell or without a finite value, raises a ``StudyError`` that names it.

    Example
    -------
    >>> rows = [{"pruner": "taylor", "loss": 2.0}, {"pruner": "taylor", "loss": 4.0}]
    >>> summarise(rows, by="pruner", value="loss")
       pruner  mean  low  high  n
    0  taylor   3.0  2.0   4.0  2
    """
    frame = pd.DataFrame(rows)
    by = [by] if isinstance(by, str) else list(by)
    _check_rows(frame, by, value)
    summaries = []
    for group, part in frame.groupby(by, sort=False):
        mean, low, high = interval(part[value])
        summaries.append((*group, mean, low, high, len(part)))
    return pd.DataFrame(summaries, columns=[*by, *SUMMARY])


def _finite(values: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise StudyError(f"{what} must be a non-empty 1-D array, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise StudyError(f"{what} must be finite, not {array.tolist()}")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise StudyError(f"level must lie strictly between 0 and 1, not {level}")


def _paired_difference(a: ArrayLike, b: ArrayLike, at_least: int, what: str) -> np.ndarray:
    a, b = _finite(a, "a"), _finite(b, "b")
    if a.size != b.size:
        raise StudyError(f"a paired test needs one b for each a, not {a.size} and {b.size} values")
    if a.size < at_least:
        raise StudyError(f"no {what} from fewer than {at_least} seeds (got {a.size})")
    return a - b


def _check_rows(frame: pd.DataFrame, by: list[str], value: str) -> None:
    if frame.empty:
        raise StudyError("there are no rows to summarise")
    missing = [name for name in [*by, value] if name not in frame]
    if missing:
        found = ", ".join(map(str, frame.columns))
        raise StudyError(f"rows have no column {', '.join(missing)}; they have {found}")
    if not by or set(by) & set(SUMMARY):
        raise StudyError(f"by must name at least one column, none of them {', '.join(SUMMARY)}; got {by}")
    unusable = frame[by].isna().any(axis=1) | ~np.isfinite(pd.to_numeric(frame[value], errors="coerce"))
    if unusable.any():
        position = int(np.argmax(unusable))  # not the label, which concatenated frames may repeat
        row = frame.iloc[position].to_dict()
        raise StudyError(f"row {position} needs {', '.join(map(str, by))} and a finite {value!r}: {row}")
