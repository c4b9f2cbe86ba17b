"""Pruners of whole blocks: one function ``(model, batches) -> Scores`` each, which scores every block of a model.

To add one, write the function in a file of its own, register it there (:class:`.registry.BlockPruner`), and import the
file here. :func:`mpstudy.structure.depth.plan_blocks` then chooses blocks by the scores, and
:func:`mpstudy.structure.depth.remove_blocks` takes them out.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..errors import StudyError
from ..structure.scores import Scores
from .registry import BLOCK_PRUNERS as BLOCK_PRUNERS

# In the order of the study, which is that of its figures and tables.
# isort: off
from . import taylor  # noqa: F401
from . import perplexity  # noqa: F401
from . import influence  # noqa: F401
# isort: on


def score(name: str, model: PreTrainedModel, batches: Sequence[torch.Tensor]) -> Scores:
    """Scores of all blocks of ``model`` by the pruner ``name``; ``batches``: int64 (samples, tokens) each."""
    return BLOCK_PRUNERS[name].function(model, batches)


def check_settings(name: str, settings: dict) -> None:
    """Raise :class:`StudyError` for an unknown pruner of blocks, or for settings, of which none has any."""
    BLOCK_PRUNERS[name]
    if settings:
        raise StudyError(f"pruner {name!r} has no settings, not {', '.join(settings)}")
