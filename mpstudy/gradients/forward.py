"""The calibration loss for methods that read it by forward passes alone."""

import math
from typing import Any

import torch

from ..errors import StudyError
from .loss import causal_loss


@torch.no_grad()
def forward_loss(model: Any, batch: torch.Tensor, where: str) -> float:
    """Mean next-token cross-entropy in nats on ``batch``, int64 (samples, tokens), in fp32. One that is not finite
    raises :class:`StudyError`, which names ``where``.
    """
    embedding = model.get_input_embeddings().weight
    loss = causal_loss(model, batch if embedding.is_meta else batch.to(embedding.device)).item()
    if not math.isfinite(loss):
        raise StudyError(f"the loss is {loss} at {where}; the weights, the tokens or the settings are not usable")
    return loss
