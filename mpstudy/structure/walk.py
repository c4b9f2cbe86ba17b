"""Calibration text on its way through a model, layer after layer, so that each layer may change before the next."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from . import families


def run_layers(model: Any, batch: torch.Tensor) -> None:
    """A forward pass of the layers, without logits, over ``batch``, int64 (samples, tokens). Where Accelerate loads the
    embedding for each use, it brings the tokens there too.
    """
    embedding = model.get_input_embeddings().weight
    model.base_model(input_ids=batch if embedding.is_meta else batch.to(embedding.device), use_cache=False)


class Walk:
    """The hidden states of ``batches`` (int64 (samples, tokens) each) before the first of ``layers``, and then wherever
    :meth:`advance` has brought them. Memory: one hidden state a token of calibration.
    """

    @torch.no_grad()
    def __init__(self, model: Any, layers: range, batches: list[torch.Tensor]):
        self._layers = families.layers(model)
        self._hidden: list[torch.Tensor] = []  # a batch each, (samples, tokens, hidden)
        self._options: list[dict[int, dict]] = []  # what else a layer takes: masks of sliding windows differ by layer

        def note(layer: int, module: nn.Module, arguments: tuple, options: dict) -> None:
            if layer == layers[0]:
                self._hidden.append(arguments[0])
                self._options.append({})
            self._options[-1][layer] = options

        hooks = [
            self._layers[layer].register_forward_pre_hook(partial(note, layer), with_kwargs=True) for layer in layers
        ]
        try:
            for batch in batches:
                run_layers(model, batch)
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def outputs(self, layer: int) -> Iterator[torch.Tensor]:
        """What ``layer`` puts out, batch by batch; the hidden states stay before it."""
        for hidden, options in zip(self._hidden, self._options):
            output = self._layers[layer](hidden, **options[layer])
            yield output[0] if isinstance(output, tuple) else output

    def advance(self, layer: int) -> None:
        """Bring the hidden states through ``layer``."""
        self._hidden = list(self.outputs(layer))

    @torch.no_grad()
    def inputs(self, layer: int, linear: nn.Module, take: Callable[[torch.Tensor], None]) -> None:
        """Give ``take`` the inputs of ``linear``, a part of ``layer``: (tokens, columns) of each batch. The layer runs
        no further than that.
        """

        def note(module: nn.Module, arguments: tuple) -> None:
            take(arguments[0].flatten(0, -2))
            raise _Reached

        hook = linear.register_forward_pre_hook(note)
        try:
            for hidden, options in zip(self._hidden, self._options):
                with suppress(_Reached):
                    self._layers[layer](hidden, **options[layer])
        finally:
            hook.remove()

    @torch.no_grad()
    def calls_of(self, layer: int, part: nn.Module) -> list[tuple[tuple, dict]]:
        """The arguments and options with which a ``part`` of ``layer`` is called, batch by batch. The layer runs no
        further than that.
        """
        calls: list[tuple[tuple, dict]] = []

        def note(module: nn.Module, arguments: tuple, options: dict) -> None:
            calls.append((arguments, options))
            raise _Reached

        hook = part.register_forward_pre_hook(note, with_kwargs=True)
        try:
            for hidden, options in zip(self._hidden, self._options):
                with suppress(_Reached):
                    self._layers[layer](hidden, **options[layer])
        finally:
            hook.remove()
        return calls


class _Reached(Exception):
    """The layer that was waited for has its inputs."""
