"""Reconstruction errors on any text: on the calibration text they are in-sample, and each fit makes them small."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ..structure import families
from ..structure.units import parse_layers
from ..structure.walk import Walk
from .finished import linears_of
from .grams import gram_matrices
from .refit import reconstruction_error


@torch.no_grad()
def reconstruction_errors(
    model: nn.Module, dense: Mapping[str, torch.Tensor], batches: list[torch.Tensor], layers: str
) -> list[dict]:
    """The errors that :func:`.sequential.prune_layers` gives, on other text and of the finished model.

    ``dense``: the weights before pruning by the name of their linear layer. ``batches``: int64 (samples, tokens) each.
    The inputs of a linear layer are those that it has with the sparse layers before it and the dense weights of its
    own layer. A row for each: ``layer``, ``linear``, ``error`` (relative squared error of its output).
    """
    numbers, rows = parse_layers(layers, len(families.layers(model))), []
    walk = Walk(model, range(numbers[0], numbers[-1] + 1), batches)
    for layer in numbers:
        linears = linears_of(model, layer)
        sparse = {name: linear.weight.detach().float().clone() for name, linear in linears.items()}
        with weights_replaced(linears, dense):
            grams = gram_matrices(walk, layer, linears)
        for name, gram in grams.items():
            error = reconstruction_error(sparse[name], dense[name].float(), gram)
            rows.append({"layer": layer, "linear": name, "error": error})
        if layer != numbers[-1]:
            walk.advance(layer)
    return rows


@contextmanager
def weights_replaced(linears: dict[str, nn.Linear], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, the ``linears`` have other ``weights`` by their names; afterwards their own again."""
    own = {name: linear.weight.data for name, linear in linears.items()}
    for name, linear in linears.items():
        linear.weight.data = weights[name].to(own[name])
    try:
        yield
    finally:
        for name, linear in linears.items():
            linear.weight.data = own[name]
