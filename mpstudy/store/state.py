"""The state of a long computation in one file, so that a run that was stopped goes on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import StudyError
from . import tensorfile
from .files import replacing


def identity(model: Any, settings: dict[str, Any], **tensors: torch.Tensor | Iterable[torch.Tensor]) -> dict[str, Any]:
    """What decides the result of a computation on a model and ``tensors``, as a key of :class:`State`."""
    from .digests import tokens_digest, weights_digest  # here: few who load this module keep a state

    return {"model": weights_digest(model)} | {name: tokens_digest(each) for name, each in tensors.items()} | settings


class State:
    """How far a computation has come. ``key``: everything that decides its result, JSON-able by name. Without a
    ``path`` nothing is kept.
    """

    def __init__(self, path: str | Path | None, key: dict[str, Any]):
        self.path, self.key = Path(path) if path else None, key

    def load(self) -> tuple[dict[str, torch.Tensor], dict] | None:
        """The tensors and facts that were saved last, or None. A file of another computation raises
        :class:`StudyError`, which names what differs.
        """
        if not self.path or not self.path.exists():
            return None
        tensors, meta = tensorfile.load(self.path, "state")
        known = meta["key"]
        if other := [name for name in {**self.key, **known} if known.get(name) != self.key.get(name)]:
            raise StudyError(f"{self.path} is of another run (other {other[0]}); delete it or choose another file")
        return tensors, meta["facts"]

    def save(self, tensors: dict[str, torch.Tensor], facts: dict) -> None:
        """Keep ``tensors`` and JSON-able ``facts`` in the place of those before: a kill leaves the old or the new."""
        if self.path:
            with replacing(self.path) as partial:
                tensorfile.save(partial, "state", tensors, {"key": self.key, "facts": facts})
