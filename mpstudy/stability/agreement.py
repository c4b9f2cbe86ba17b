"""How much two pruning decisions, or two sets of scores, agree.

A *mask* is the set of removed units: ``dict[str, indices]``, one 1-D integer array of distinct unit indices
for each key such as ``"layers.3.mlp"``. *Scores* are ``dict[str, array]``, one finite value per unit. Counts
and ``sizes`` are ``dict[str, int]``. All dictionaries of one call have the same keys; anything else raises a
``StudyError``. Arrays may be NumPy arrays, lists or CPU tensors.

Two conventions hold throughout. Two masks that remove nothing agree perfectly (1, not 0/0). "Chance" means
two independent masks, each uniform among those that remove the given number of units under each key: masks
earn no credit for pruning a layer equally hard, only for choosing the same units in it.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import hypergeom, kendalltau, spearmanr

from ..errors import StudyError


def jaccard(a: Mapping, b: Mapping) -> float:
    """|A and B| / |A or B| over the removed units of all keys taken together.

    Example
    -------
    >>> jaccard({"heads": [0], "mlp": [1, 2, 3]}, {"heads": [0], "mlp": [3, 4, 5]})
    0.3333333333333333
    """
    counts = _counts(a, b)
    return _jaccard(*np.sum(list(counts.values()), axis=0)) if counts else 1.0


def jaccard_by_key(a: Mapping, b: Mapping) -> dict[str, float]:
    """The Jaccard index of the removed units under each key.

    Example
    -------
    >>> jaccard_by_key({"heads": [0], "mlp": [1, 2]}, {"heads": [0], "mlp": [3, 4]})
    {'heads': 1.0, 'mlp': 0.0}
    """
    return {key: _jaccard(*counts) for key, counts in _counts(a, b).items()}


def expected_jaccard(removed: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    """Chance value of :func:`jaccard` for two masks that remove ``removed[key]`` of ``sizes[key]`` units.

    Under one key the number of common units is hypergeometric(N, r, r). Keys are independent, so the total C
    of common units follows the convolution of these distributions, computed as a product of Fourier
    transforms. With R units removed by each mask the result is E[C / (2R - C)]. It is exact up to rounding;
    the shorter E[C] / (2R - E[C]) is never above it (Jensen) and visibly below it for a few attention heads.

    Example
    -------
    >>> round(expected_jaccard({"mlp": 1}, {"mlp": 4}), 6)  # both remove one of four
    0.25
    """
    _check_same_keys(removed, sizes)
    for key, r in removed.items():
        if not 0 <= r <= sizes[key]:
            raise StudyError(f"cannot remove {r} units of {key!r}: it has {sizes[key]}")
    total = sum(removed.values())
    if total == 0:
        return 1.0
    spectrum: np.ndarray | complex = 1.0
    for (size, r), layers in Counter((sizes[key], removed[key]) for key in removed).items():
        spectrum = spectrum * np.fft.rfft(hypergeom(size, r, r).pmf(np.arange(r + 1)), n=total + 1) ** layers
    common = np.arange(total + 1)
    return float(np.fft.irfft(spectrum, n=total + 1) @ (common / (2 * total - common)))


def overlap(a: Mapping, b: Mapping) -> float:
    """Share of the removed units that both masks remove, over all keys: 2 |A and B| / (|A| + |B|).

    Masks of equal size share exactly this part of their units; for others it is the Dice coefficient.

    Example
    -------
    >>> overlap({"heads": [0], "mlp": [1, 2, 3]}, {"heads": [0], "mlp": [3, 4, 5]})
    0.5
    """
    counts = _counts(a, b).values()
    removed = sum(in_a + in_b for _, in_a, in_b in counts)
    return 2 * sum(common for common, _, _ in counts) / removed if removed else 1.0


def chance_corrected_overlap(a: Mapping, b: Mapping, sizes: Mapping[str, int]) -> float:
    """(o - e) / (1 - e), with o the :func:`overlap` and e its chance value (as Cohen's kappa, 1960).

    With A_k and B_k units removed of N_k under key k, e = 2 sum_k(A_k B_k / N_k) / sum_k(A_k + B_k), exactly,
    since the overlap is linear in the number of common units. Identical masks give 1, independent ones 0 in
    expectation, masks that avoid each other less than 0. Where chance alone forces agreement (e = 1: every
    key is removed whole or not at all) the value is 1.

    Example
    -------
    >>> chance_corrected_overlap({"mlp": [0, 1]}, {"mlp": [1, 2]}, {"mlp": 8})  # o = 1/2, e = 1/4
    0.3333333333333333
    """
    counts = _counts(a, b)
    _check_same_keys(a, sizes)
    for key in counts:
        highest = max(_indices(key, mask[key]).max(initial=-1) for mask in (a, b))
        if highest >= sizes[key]:
            raise StudyError(f"mask of {key!r} removes unit {highest}, but it has {sizes[key]} units")
    removed = sum(in_a + in_b for _, in_a, in_b in counts.values())
    by_chance = sum(in_a * in_b / sizes[key] for key, (_, in_a, in_b) in counts.items() if in_a)
    expected = 2 * by_chance / removed if removed else 1.0
    return (overlap(a, b) - expected) / (1 - expected) if expected < 1 else 1.0


def spearman(x: Mapping, y: Mapping) -> float:
    """Rank correlation of two sets of scores: the plain mean of :func:`spearman_by_key` over the keys.

    Example
    -------
    >>> spearman({"heads": [1, 2, 3], "mlp": [1, 2, 3]}, {"heads": [2, 4, 9], "mlp": [3, 2, 1]})
    0.0
    """
    return _mean(spearman_by_key(x, y))


def kendall(x: Mapping, y: Mapping) -> float:
    """Kendall's rank correlation of two sets of scores: the plain mean of :func:`kendall_by_key` over the keys.

    Example
    -------
    >>> kendall({"heads": [1, 2, 3], "mlp": [1, 2, 3]}, {"heads": [2, 4, 9], "mlp": [3, 2, 1]})
    0.0
    """
    return _mean(kendall_by_key(x, y))


def spearman_by_key(x: Mapping, y: Mapping) -> dict[str, float]:
    """Spearman's rank correlation under each key; ties take their mean rank.

    Raises a ``StudyError`` for a key whose scores are all equal, where the correlation is undefined.

    Example
    -------
    >>> spearman_by_key({"mlp": [1, 2, 3, 4]}, {"mlp": [4, 3, 2, 1]})
    {'mlp': -1.0}
    """
    return _correlations(x, y, spearmanr)


def kendall_by_key(x: Mapping, y: Mapping) -> dict[str, float]:
    """Kendall's tau-b under each key: the share of pairs of units in the same order, minus that in the opposite one.

    Raises a ``StudyError`` for a key whose scores are all equal, where the correlation is undefined.

    Example
    -------
    >>> round(kendall_by_key({"mlp": [1, 2, 3]}, {"mlp": [2, 1, 3]})["mlp"], 6)  # two pairs of three in the same order
    0.333333
    """
    return _correlations(x, y, kendalltau)


def cut_margin(scores: Mapping, removed: Mapping[str, int]) -> dict[str, float]:
    """How close the decision was under each key: (kept - gone) / (kept + gone), with ``kept`` the lowest score that
    stays and ``gone`` the highest one that is removed, of ``removed[key]`` units with the lowest scores.

    It is the smallest relative change of scores, in [0, 1], that lets the two trade places: the larger one may fall and
    the smaller one rise by that part of it. Keys that lose nothing, or everything, have no cut and are left out. Raises
    a ``StudyError`` for negative scores.

    Example
    -------
    >>> cut_margin({"mlp": [5.0, 1.0, 3.0, 8.0]}, {"mlp": 2})  # 5 stays, 3 goes
    {'mlp': 0.25}
    """
    _check_same_keys(scores, removed)
    margins = {}
    for key, (values, _) in _score_pairs(scores, scores).items():
        if values.min(initial=0) < 0:
            raise StudyError(f"scores of {key!r} are negative: a margin relative to them has no meaning")
        if 0 < removed[key] < values.size:
            gone, kept = np.sort(values)[removed[key] - 1 : removed[key] + 1]
            margins[key] = float((kept - gone) / (kept + gone)) if kept else 0.0
    return margins


def instability(before: float, after: float) -> float:
    """The share of accuracy that is lost at the moment of pruning, (before - after) / before (Bartoldson et al. 2020,
    arXiv 1906.03728).

    Example
    -------
    >>> instability(0.5, 0.25)
    0.5
    """
    if not 0 < before <= 1 or not 0 <= after <= 1:
        raise StudyError(f"instability needs accuracies in (0, 1] and [0, 1], not {before!r} and {after!r}")
    return (before - after) / before


def relative_change(x: Mapping, y: Mapping) -> float:
    """||x - y|| / ||x||, Euclidean, over the scores of all keys taken together (``x`` is the reference).

    Example
    -------
    >>> relative_change({"mlp": [6.0, 8.0]}, {"mlp": [6.0, 3.0]})
    0.5
    """
    pairs = _score_pairs(x, y).values()
    reference = sum(np.sum(left**2) for left, _ in pairs)
    if reference == 0:
        raise StudyError("relative change is undefined: the reference scores are all zero")
    return float(np.sqrt(sum(np.sum((left - right) ** 2) for left, right in pairs) / reference))


def _correlations(x: Mapping, y: Mapping, correlation: Callable) -> dict[str, float]:
    result = {}
    for key, (left, right) in _score_pairs(x, y).items():
        if left.size == 0 or np.ptp(left) == 0 or np.ptp(right) == 0:
            raise StudyError(f"scores of {key!r} are all equal: their rank correlation is undefined")
        result[key] = float(correlation(left, right).statistic)
    return result


def _mean(by_key: Mapping[str, float]) -> float:
    if not by_key:
        raise StudyError("rank correlation needs scores under at least one key")
    return float(np.mean(list(by_key.values())))


def _jaccard(common: int, in_a: int, in_b: int) -> float:
    union = in_a + in_b - common
    return float(common / union) if union else 1.0


def _counts(a: Mapping, b: Mapping) -> dict[str, tuple[int, int, int]]:
    """Number of units removed by both masks, by ``a`` and by ``b``, for each key."""
    _check_same_keys(a, b)
    counts = {}
    for key in a:
        left, right = _indices(key, a[key]), _indices(key, b[key])
        counts[key] = (np.intersect1d(left, right, assume_unique=True).size, left.size, right.size)
    return counts


def _indices(key: str, values: ArrayLike) -> np.ndarray:
    indices = np.asarray(values)
    if indices.size == 0:
        return np.empty(0, dtype=np.int64)
    # A boolean array would otherwise pass as the indices 0 and 1.
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        found = f"{indices.dtype} of shape {indices.shape}"
        raise StudyError(f"mask of {key!r} must be a 1-D array of integer indices, not {found}")
    if indices.min() < 0 or np.unique(indices).size < indices.size:
        raise StudyError(f"mask of {key!r} must hold distinct indices from 0 upwards")
    return indices


def _score_pairs(x: Mapping, y: Mapping) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both scores of each key as float64 arrays (squares of small fp32 scores underflow), checked."""
    _check_same_keys(x, y)
    pairs = {key: (np.asarray(x[key], dtype=np.float64), np.asarray(y[key], dtype=np.float64)) for key in x}
    for key, (left, right) in pairs.items():
        if left.ndim != 1 or left.shape != right.shape:
            shapes = f"{left.shape} and {right.shape}"
            raise StudyError(f"scores of {key!r} must be 1-D arrays of one length, not of shapes {shapes}")
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise StudyError(f"scores of {key!r} hold a NaN or infinite value")
    return pairs


def _check_same_keys(a: Mapping, b: Mapping) -> None:
    different = sorted(set(a) ^ set(b))
    if different:
        raise StudyError(f"keys must be the same on both sides; only one side has {', '.join(different)}")
