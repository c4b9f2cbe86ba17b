"""The registry of pruners of whole blocks."""

from collections.abc import Callable
from dataclasses import dataclass

from ..registry import Look, Registry


@dataclass(frozen=True)
class BlockPruner:
    """A pruner of whole blocks: a function ``(model, batches) -> Scores`` and its look in figures.

    ``batches``: int64 tensors (samples, tokens) of calibration text, equally large. The scores are one value a block,
    float32 (blocks,), under :data:`mpstudy.structure.depth.BLOCKS`; low is removed first. The model is bit for bit as
    it was afterwards, also when the function raises.
    """

    function: Callable
    look: Look | None = None


BLOCK_PRUNERS = Registry("pruner of blocks", BlockPruner)
