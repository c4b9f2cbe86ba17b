"""Taylor scores of whole blocks (Shortened LLaMA, arXiv 2402.02834)."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..gradients.loss import mean_gradients, only_trainable
from ..registry import BLUE, Look
from ..structure.depth import BLOCKS
from ..structure.families import family, layers
from ..structure.scores import Scores
from .registry import BLOCK_PRUNERS


@BLOCK_PRUNERS.register("block-taylor", look=Look("block-taylor", BLUE, "s"))
def block_taylor(model: PreTrainedModel, batches: Sequence[torch.Tensor]) -> Scores:
    """The sum of ``|w * g|`` over every weight of a block, norms and biases among them.

    g is the gradient of the mean loss over all batches, so that what has other signs in two of them cancels before the
    absolute value. Takes a gradient of every block at once, as much memory as their weights.
    """
    place = family(model.config).layers
    of_blocks: list[dict[str, torch.Tensor]] = [
        {f"{place}.{number}.{name}": weight for name, weight in block.named_parameters()}
        for number, block in enumerate(layers(model))
    ]
    weights = {name: weight for of_block in of_blocks for name, weight in of_block.items()}
    with only_trainable(model, weights):
        loss, gradients = mean_gradients(model, batches, weights)
    values = [sum(_size(weight, gradients[name]) for name, weight in each.items()) for each in of_blocks]
    meta = {"pruner": "block-taylor", "loss": loss, "gradients": len(batches)}
    return Scores({BLOCKS: torch.tensor(values, dtype=torch.float32)}, meta)


def _size(weight: torch.Tensor, gradient: torch.Tensor) -> float:
    return float((weight.detach().float() * gradient.float()).abs().sum(dtype=torch.float64))
