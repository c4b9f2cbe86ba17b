"""Where a measurement's variance comes from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import StudyError


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


def component_sds(values: ArrayLike, factors: Sequence[str]) -> dict[str, float]:
    """The square roots of :func:`variance_components`, in the unit of ``values``; 0 for a component estimated as
    negative, which says that it is small.

    Example
    -------
    >>> component_sds([[0, 3, 6], [1, 4, 7], [2, 5, 8]], ["seed", "noise"])  # i + 3 j
    {'seed': 1.0, 'noise': 3.0, 'rest': 0.0}
    """
    return {name: max(variance, 0.0) ** 0.5 for name, variance in variance_components(values, factors).items()}
