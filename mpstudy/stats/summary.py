"""The interval that every figure and table shows, and tables of it.

One rule for the whole study: :func:`interval` is the mean with its 95 % Student interval over independent repetitions
(seeds). It covers the mean of normal values in 95 of 100 cases at any n >= 2, and pays with width where n is small:
three seeds give the mean +- 2.5 standard deviations. It holds for a mean of independent values alone; means over pairs
of samples, and losses that share a text, have estimates of their own in :mod:`mpstudy.stats.estimate`.

:func:`bootstrap_ci` is for other statistics of many values, such as a median of latencies. With few values it is too
narrow: for n <= 3 it is simply their range, and for the mean of six normal values it covers 86 %.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from ..errors import StudyError
from .checked import check_level, finite
from .estimate import of_mean

SUMMARY = ("mean", "low", "high", "n")


def interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t for ``values``, shape (n,); a single value gives (value, nan, nan).

    Example
    -------
    >>> mean, low, high = interval([1.0, 2.0, 3.0])
    >>> print(f"{mean:.0f} [{low:.3f}, {high:.3f}]")
    2 [-0.484, 4.484]
    """
    values = finite(values, "values")
    check_level(level)
    if values.size == 1:
        return float(values[0]), np.nan, np.nan
    estimate = of_mean(values)
    return estimate.value, *estimate.interval(level)


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
    values = finite(values, "values")
    check_level(level)
    estimate = float(statistic(values, axis=-1))
    if values.size == 1:
        return estimate, np.nan, np.nan
    drawn = bootstrap((values,), statistic, n_resamples=resamples, method="percentile", vectorized=True, rng=seed)
    # Not SciPy's own interval: its weights (1 - g) x + g y miss x by a rounding where x = y, so that two values of 0.33
    # get low > high. NumPy's x + g (y - x) cannot, and the committed intervals are NumPy's to the last bit.
    low, high = np.quantile(drawn.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return estimate, float(low), float(high)


def summarise(rows: pd.DataFrame | Iterable[dict], by: str | Sequence[str], value: str) -> pd.DataFrame:
    """One row a group: the columns ``by``, then mean, low, high (:func:`interval`) and n of column ``value``.

    ``rows`` is tidy, one measurement a row. Groups come in the order of their first row. A missing column, or
    a row with an empty ``by`` cell or without a finite value, raises a ``StudyError`` that names it.

    Example
    -------
    >>> rows = [{"pruner": "taylor", "loss": 2.0}, {"pruner": "taylor", "loss": 4.0}]
    >>> summarise(rows, by="pruner", value="loss").round(1)
       pruner  mean  low  high  n
    0  taylor   3.0 -9.7  15.7  2
    """
    frame = pd.DataFrame(rows)
    by = [by] if isinstance(by, str) else list(by)
    _check_rows(frame, by, value)
    summaries = []
    for group, part in frame.groupby(by, sort=False):
        mean, low, high = interval(part[value])
        summaries.append((*group, mean, low, high, len(part)))
    return pd.DataFrame(summaries, columns=[*by, *SUMMARY])


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
