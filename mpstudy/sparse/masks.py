"""How sparse a matrix is to become, and which of its weights stay by their importance."""

import re
from contextlib import suppress
from dataclasses import dataclass

import torch

from ..errors import StudyError


@dataclass(frozen=True)
class Target:
    """A share of zeros in [0, 1), or ``n:m``: n weights stay of every m neighbours of a row (2:4, 4:8)."""

    sparsity: float
    keep: int = 0
    of: int = 0

    @classmethod
    def parse(cls, text: str | float) -> "Target":
        """``0.6`` or ``"2:4"``; anything else raises :class:`StudyError`."""
        if found := re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", str(text)):
            keep, of = map(int, found.groups())
            if keep < of:
                return cls(1 - keep / of, keep, of)
        with suppress(TypeError, ValueError):
            if not isinstance(text, bool) and 0 <= float(text) < 1:
                return cls(float(text))
        raise StudyError(f"a sparsity is a number in [0, 1) or n:m with n < m, such as 2:4; not {text!r}")

    def check(self, columns: int, name: str) -> None:
        """:class:`StudyError` if the rows of a matrix do not divide into groups of m."""
        if self.of and columns % self.of:
            raise StudyError(f"{name} has {columns} columns, which {self.keep}:{self.of} does not divide")

    def at(self, sparsity: float) -> "Target":
        """A smaller share of zeros on the way to this one; n:m stays as it is, for it has no share between."""
        return self if self.of else Target(sparsity)


def kept(importance: torch.Tensor, target: Target, per: str = "row") -> torch.Tensor:
    """The mask, bool (rows, columns), of the weights of largest ``importance`` that stay.

    ``per`` ``row``: every row has ``int(columns * sparsity)`` zeros. ``matrix``: the matrix has ``int(size *
    sparsity)``. For n:m it does not matter. Of equal weights the first go.
    """
    if target.of:
        groups = importance.unflatten(1, (-1, target.of))
        return _without_lowest(groups, target.of - target.keep).flatten(1)
    if per == "row":
        return _without_lowest(importance, int(importance.shape[1] * target.sparsity))
    return _without_lowest(importance.flatten(), int(importance.numel() * target.sparsity)).view_as(importance)


def _without_lowest(values: torch.Tensor, count: int) -> torch.Tensor:
    """The mask without the ``count`` lowest of the last dimension. By selection, which takes a fraction of a sort."""
    if count == 0:
        return torch.ones_like(values, dtype=torch.bool)
    threshold = values.kthvalue(count, dim=-1, keepdim=True).values
    below, equal = values < threshold, values == threshold
    more = count - below.sum(dim=-1, keepdim=True)
    return ~(below | equal & (equal.cumsum(dim=-1) <= more))
