"""Gram matrices of the inputs of linear layers, each once: q, k and v read the same states, and so do gate and up."""

import torch
from torch import nn

from ..structure.walk import Walk


@torch.no_grad()
def gram_matrices(walk: Walk, layer: int, linears: dict[str, nn.Linear]) -> dict[str, torch.Tensor]:
    """``X^T X`` of the inputs of the ``linears`` of a layer over all that ``walk`` holds, float32 (columns, columns),
    by name. Linear layers that are given one and the same tensor one after the other have one matrix.
    """
    grams: dict[str, torch.Tensor] = {}
    last: tuple[torch.Tensor | None, str] = (None, "")  # alone, since what is remembered stays in memory

    def note(name: str, linear: nn.Linear, states: torch.Tensor) -> None:
        nonlocal last
        if states is last[0]:
            grams[name] = grams[last[1]]
            return
        last = (states, name)
        if name not in grams:
            grams[name] = torch.zeros(linear.in_features, linear.in_features, device=linear.weight.device)
        x = states.flatten(0, -2).float()
        grams[name].addmm_(x.t(), x)

    def hook(name: str):
        return lambda module, arguments: note(name, module, arguments[0])

    hooks = [linear.register_forward_pre_hook(hook(name)) for name, linear in linears.items()]
    try:
        for _ in walk.outputs(layer):
            last = (None, "")
    finally:
        for handle in hooks:
            handle.remove()
    return grams
