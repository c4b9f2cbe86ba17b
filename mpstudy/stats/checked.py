"""What the statistics ask of their input."""

import numpy as np
from numpy.typing import ArrayLike

from ..errors import StudyError


def finite(values: ArrayLike, what: str) -> np.ndarray:
    """``values`` as an array of shape (n,), n > 0, of finite numbers; ``what`` names them in the error."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise StudyError(f"{what} must be a non-empty 1-D array, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise StudyError(f"{what} must be finite, not {array.tolist()}")
    return array


def check_level(level: float) -> None:
    """Raise a ``StudyError`` unless ``level`` is a probability strictly between 0 and 1."""
    if not 0 < level < 1:
        raise StudyError(f"level must lie strictly between 0 and 1, not {level}")
