"""Depth: whole blocks (decoder layers) as units, which leave a model of the same family with fewer layers.

Since every block of a model is equally large, a ratio of blocks is a share of the parameters of all blocks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import StudyError
from ..parameters import CountOrZero, checked
from .families import layers
from .plan import Plan, check_ratio, lowest
from .scores import Scores
from .sliced import is_sliced

BLOCKS = "blocks"  # under which scores and plans store them
FIRST, LAST = 4, 2  # that stay by default, as in Shortened LLaMA (arXiv 2402.02834)


def plan_blocks(scores: Scores, ratio: float, *, first: int = FIRST, last: int = LAST) -> Plan:
    """Remove the lowest-scoring blocks, as many as are nearest to ``ratio`` of all.

    ``scores``: one value a block under :data:`BLOCKS`. The ``first`` and the ``last`` blocks stay, whatever their
    scores. Ties go to the lower index.

    Raises
    ------
    StudyError: a ratio outside [0, 1), scores that are not of blocks or not finite, or more blocks than may go.
    """
    check_ratio(ratio)
    for name, count in (("first", first), ("last", last)):
        checked(CountOrZero, f"the number of {name} blocks that stay", count)
    if BLOCKS not in scores.values:
        raise StudyError(f"the scores are not of whole blocks, but of {', '.join(sorted(scores.values))}")
    values = scores.values[BLOCKS]
    if not torch.isfinite(values).all():
        raise StudyError("the scores of the blocks are not finite")
    blocks = len(values)
    count, free = int(ratio * blocks + 0.5), max(0, blocks - first - last)
    if count > free or count == blocks:
        raise StudyError(
            f"a ratio of {ratio} is {count} of {blocks} blocks, and {min(free, blocks - 1)} may go: the first {first}, "
            f"the last {last} and at least one stay"
        )
    chosen = first + lowest(values[first : first + free], count)
    meta = {"ratio": ratio, "first": first, "last": last, "pruner": scores.meta.get("pruner", "unknown")}
    return Plan({BLOCKS: chosen}, {BLOCKS: blocks}, meta)


def remove_blocks(model: Any, plan: Plan) -> Any:
    """Take the planned blocks out of ``model`` in place; returns ``model``, which transformers saves and loads.

    The config names the blocks that are left and the kind of attention of each. Raises :class:`StudyError` if the plan
    does not fit the model, or the model is a sliced one, whose blocks do not fit each other.
    """
    blocks = _blocks(model)
    if plan.counts != {BLOCKS: len(blocks)}:
        raise StudyError(f"the plan does not fit this model: it is of {plan.counts}, here are {len(blocks)} blocks")
    gone = set(plan.removed[BLOCKS].tolist())
    kept = [number for number in range(len(blocks)) if number not in gone]
    for number in sorted(gone, reverse=True):
        del blocks[number]
    for number, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # its place in the cache of keys and values
                module.layer_idx = number
    changes: dict[str, Any] = {"num_hidden_layers": len(kept)}
    if types := getattr(model.config, "layer_types", None):
        changes["layer_types"] = [types[number] for number in kept]
    model.config.update(changes)
    return model


@contextmanager
def without_block(model: nn.Module, number: int) -> Iterator[None]:
    """Skip a block of ``model`` for the length of the ``with`` statement: it passes on what it is given. The others
    keep their masks and positions, so this is the model without it.
    """
    blocks = _blocks(model)
    block = blocks[number]
    blocks[number] = _Skip()
    try:
        yield
    finally:
        blocks[number] = block


def _blocks(model: Any) -> Any:
    if is_sliced(model):
        raise StudyError("blocks of a sliced model cannot be left out: each hands on states in directions of its own")
    return layers(model)


class _Skip(nn.Module):
    def forward(self, hidden: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return hidden
