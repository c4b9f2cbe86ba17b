"""The architecture of a sliced model (SliceGPT, arXiv 2401.15024, section 3).

Every norm reads the hidden states in directions of its own, fewer than the dense model has. What attention and MLP
write is in the directions of the next norm, and a matrix in each shortcut turns the states into those too. The config
names the smaller hidden size, and under :data:`SLICED_FROM` the dense one.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

from .families import layers

SLICED_FROM = "sliced_from"
SHORTCUTS = ("attention_shortcut", "mlp_shortcut")
NORMS = ("input_layernorm", "post_attention_layernorm")  # before attention and before MLP


class SlicedNorm(nn.Module):
    """The root mean square norm of cut states, without a gain: ``x / sqrt(sum(x^2) / dense + eps)`` in at least fp32.

    ``dense``: the hidden size before the cut. What was cut counts as zero.
    """

    def __init__(self, dense: int, eps: float):
        super().__init__()
        self.dense, self.eps = dense, eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) / self.dense + self.eps)).to(hidden.dtype)


class _SlicedBlock:
    """The forward pass of a block with matrices in its shortcuts, which are (hidden, hidden) and multiply from the
    right.
    """

    def forward(self: Any, hidden_states: torch.Tensor, **options: Any) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        hidden_states = hidden_states @ self.attention_shortcut + share_of(self) * attended
        changed = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states @ self.mlp_shortcut + share_of(self) * changed


def share_of(block: nn.Module) -> float:
    """What a block multiplies its attention and its MLP by before it adds them: Granite's multiplier, or 1."""
    return getattr(block, "residual_multiplier", 1.0)


def is_sliced(model: Any) -> bool:
    """Whether the config of a model says that it is a sliced one."""
    return getattr(model.config, SLICED_FROM, None) is not None


def with_shortcuts(model: Any) -> Any:
    """``model`` as it is, or, where its config says that it is sliced, with norms without gains and shortcuts with
    matrices, whose contents are arbitrary; in place.
    """
    if not is_sliced(model):
        return model
    dense, eps, size = getattr(model.config, SLICED_FROM), model.config.rms_norm_eps, model.config.hidden_size
    blocks: Any = layers(model)
    for block in blocks:
        for norm, shortcut in zip(NORMS, SHORTCUTS):
            setattr(block, norm, SlicedNorm(dense, eps))
            block.register_parameter(shortcut, nn.Parameter(torch.empty(size, size, dtype=model.dtype)))
        kind: Any = type(block)
        block.__class__ = _sliced_class(kind)
    model.base_model.norm = SlicedNorm(dense, eps)
    return model


@cache
def _sliced_class(kind: Any) -> type:
    """A class of blocks that are of ``kind`` but for their forward pass."""
    return type(f"Sliced{kind.__name__}", (_SlicedBlock, kind), {})
