"""Numbers that are not finite end a pruning: a mask by them would be arbitrary, and every later layer reads them."""

import torch

from ..errors import StudyError


def check_finite(what: str, values: torch.Tensor, linear: str, method: str) -> None:
    """:class:`StudyError` with the name of a ``linear`` layer if one of its ``values`` is infinite or no number."""
    if not torch.isfinite(values).all():
        raise StudyError(f"the {what} are not finite in {linear} (method {method})")
