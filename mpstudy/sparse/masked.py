"""Masks by scores that are made elsewhere, such as those of :mod:`.importance`."""

import torch

from .masks import kept
from .registry import METHODS


@METHODS.register("masked", takes_scores=True, needs_data=False)
def masked(weight, gram, target, importance) -> torch.Tensor:
    """In each row the weights of smallest ``importance`` go."""
    return weight * kept(importance, target)
