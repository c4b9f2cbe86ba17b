"""Wanda: weights times the norms of their inputs (Sun et al., arXiv 2306.11695)."""

import torch

from ..registry import GREEN, Look
from .masks import kept
from .registry import METHODS


@METHODS.register("wanda", look=Look("wanda", GREEN, "D"))
def wanda(weight, gram, target, importance=None) -> torch.Tensor:
    """In each row the smallest ``|w_ij| * ||x_j||`` go (Sun et al., arXiv 2306.11695, eq. 1)."""
    return weight * kept(_wanda_importance(weight, gram), target)


def _wanda_importance(weight, gram) -> torch.Tensor:
    """``|w_ij| * ||x_j||``, of the weight's shape."""
    return weight.abs() * gram.diagonal().clamp_min(0).sqrt()
