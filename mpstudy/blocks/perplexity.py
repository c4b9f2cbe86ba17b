"""Perplexity scores of whole blocks (Shortened LLaMA, arXiv 2402.02834)."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..evaluation.perplexity import perplexity
from ..registry import GREEN, Look
from ..structure.depth import BLOCKS, without_block
from ..structure.families import layers
from ..structure.scores import Scores
from .registry import BLOCK_PRUNERS


@BLOCK_PRUNERS.register("block-ppl", look=Look("block-ppl", GREEN, "v"))
def block_ppl(model: PreTrainedModel, batches: Sequence[torch.Tensor]) -> Scores:
    """The perplexity of the calibration samples without the block, the others as they are: as many forward passes as
    there are blocks, and no gradient. The dense model's is in ``meta``.
    """
    windows, values = torch.cat(list(batches)), []
    for number in range(len(layers(model))):
        with without_block(model, number):
            values.append(perplexity(model, windows)["perplexity"])
    meta = {"pruner": "block-ppl", "perplexity": perplexity(model, windows)["perplexity"], "gradients": 0}
    return Scores({BLOCKS: torch.tensor(values, dtype=torch.float32)}, meta)
