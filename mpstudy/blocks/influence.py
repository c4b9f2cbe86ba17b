"""Block influence (ShortGPT, arXiv 2403.03853; also in Minitron, arXiv 2407.14679)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from ..registry import ORANGE, Look
from ..structure.depth import BLOCKS
from ..structure.families import layers
from ..structure.scores import Scores
from ..structure.walk import run_layers
from .registry import BLOCK_PRUNERS


@BLOCK_PRUNERS.register("block-influence", look=Look("block-influence", ORANGE, "D"))
@torch.no_grad()
def block_influence(model: PreTrainedModel, batches: Sequence[torch.Tensor]) -> Scores:
    """``1 - cos(x, y)`` of a block's input x and output y, the hidden states of a token, in the mean over all tokens:
    one forward pass in all. A block that hardly turns what it is given goes first.
    """
    blocks = layers(model)
    sums, tokens = torch.zeros(len(blocks), dtype=torch.float64), sum(batch.numel() for batch in batches)

    def note(number: int, module: nn.Module, arguments: tuple, output: torch.Tensor) -> None:
        cosines = functional.cosine_similarity(arguments[0].double(), output.double(), dim=-1)
        sums[number] += (1 - cosines).sum().cpu()

    hooks = [block.register_forward_hook(partial(note, number)) for number, block in enumerate(blocks)]
    try:
        for batch in batches:
            run_layers(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return Scores({BLOCKS: (sums / tokens).float()}, {"pruner": "block-influence", "gradients": 0})
