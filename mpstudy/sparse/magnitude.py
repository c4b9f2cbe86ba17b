"""Magnitude: the smallest weights of a matrix go, whatever it is given."""

import torch

from ..registry import GREY, Look
from .masks import kept
from .registry import METHODS


@METHODS.register("magnitude", look=Look("magnitude", GREY, "x"), needs_data=False)
def magnitude(weight, gram, target, importance=None) -> torch.Tensor:
    """The smallest ``|w|`` of the matrix go."""
    return weight * kept(weight.abs(), target, "matrix")
