"""LLM-Barber (Su et al., arXiv 2408.10631): rebuild the masks of a sparse model by its blocks' own error.

In a layer the attention comes first, then the MLP, each fed with what the sparse model before it puts out. The loss of
a sample is the mean squared difference of the sparse block's output and that of the dense weights on the same input; a
weight scores ``|w| * sqrt(mean g^2)``, with w the dense weight and g the gradient of the loss at the dense weights.
Weights that are gone and score high change places with weights that stay and score low (:mod:`.swaps`). All that stay
then have their dense values, as in the paper's runs: what SparseGPT or another update had made of them is lost.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ..errors import StudyError, check_choice
from ..parameters import Part, checked
from ..store.digests import tokens_digest
from ..structure import families
from ..structure.units import parse_layers
from ..structure.walk import Walk
from .finished import Finished, linears_of
from .finite import check_finite
from .masks import Target
from .swaps import SCOPES, swapped

Call = tuple[tuple, dict]  # arguments and options of a forward pass
SHARES = {"block": 0.1, "matrix": 0.1, "row": 0.01, "column": 0.001}  # of the pairs with a gain, as published


@torch.no_grad()
def rebuild(
    model: Any,
    dense: Mapping[str, torch.Tensor],
    batches: list[torch.Tensor],
    layers: str,
    scope: str,
    target: Target,
    *,
    share: float | None = None,
    log: Callable[[dict], None] = lambda row: None,
    state: str | Path | None = None,
) -> list[dict]:
    """Swap weights of the sparse ``model`` in place; every matrix, or row, column or block, stays as sparse as it is.
    Memory beside the model and ``dense``: at one layer each sample's states, and inputs and outputs of a block.

    Parameters
    ----------
    dense: the weights before pruning by the name of their linear layer, for all inside ``layers``, on any device.
    batches: int64 (samples, tokens) each: calibration, one sample at a time.
    scope, share: the pool of weights that are paired, and the share of its pairs with a gain that is swapped; by
        default the published one of the scope. Under an n:m ``target`` the scope is ``row``.
    state: a folder that keeps every finished layer; a call that finds some goes on after them.

    Returns
    -------
    A row for each block: ``layer``, ``block`` (attention or mlp), ``swaps`` (pairs), ``before`` and ``after`` (squared
    error of its output relative to the dense weights' on the calibration text), ``seconds``.

    Raises :class:`StudyError` as :func:`check_rebuild`, for dense weights that are missing or do not fit, and for a
    number that is not finite, whose place is named.
    """
    check_rebuild(model.config, scope, target, share)
    share = SHARES[scope] if share is None else share
    chosen, rows = parse_layers(layers, len(families.layers(model))), []
    names = {name: linear for layer in chosen for name, linear in linears_of(model, layer).items()}
    _check_dense(names, dense)
    samples = [sample[None] for batch in batches for sample in batch]
    settings = {"layers": layers, "method": "rebuild", "scope": scope, "share": share, "target": str(target)}
    if state:
        settings["dense"] = tokens_digest(dense[name].float() for name in names)
    finished = Finished(state, model, samples, settings)
    waiting = list(dropwhile(lambda layer: finished.load(layer, model, rows), chosen))
    for row in rows:
        log(row)
    walk = Walk(model, range(waiting[0], waiting[-1] + 1), samples) if waiting else None
    for layer in waiting:
        new = []
        for kind, block in _blocks(model, layer, dense).items():
            calls = walk.calls_of(layer, block.module)
            new.append({"layer": layer, "block": kind} | _rebuilt(calls, block, scope, share, target))
            log(new[-1])
        finished.save(layer, linears_of(model, layer), new)
        rows += new
        if layer != waiting[-1]:
            walk.advance(layer)
    return rows


def check_rebuild(config: Any, scope: str, target: Target, share: float | None = None) -> None:
    """:class:`StudyError` for an unknown scope, one that a pattern cannot have, a share outside [0, 1], and a family
    whose MLP is no module.
    """
    check_choice("scope", scope, SCOPES)
    if target.of and scope != "row":
        raise StudyError(f"{target.keep}:{target.of} masks are rebuilt in their rows: the scope is row, not {scope}")
    if share is not None:
        checked(Part, "the share of swaps", share)
    if not families.family(config).mlp:
        raise StudyError(f"models of {config.model_type} have no module that is an MLP: their masks cannot be rebuilt")


def _check_dense(linears: Mapping[str, nn.Linear], dense: Mapping[str, torch.Tensor]) -> None:
    """The last layer may be hours away."""
    for name, linear in linears.items():
        if name not in dense or dense[name].shape != linear.weight.shape:
            raise StudyError(f"there is no dense weight of {name} of the shape {tuple(linear.weight.shape)}")
        check_finite("dense weights", dense[name], name, "rebuild")


@dataclass(frozen=True)
class _Block:
    """Attention or MLP of a layer, its linear layers by their names inside it, and their dense weights."""

    module: nn.Module
    place: str
    linears: dict[str, nn.Linear]
    dense: dict[str, torch.Tensor]


def _blocks(model: Any, layer: int, dense: Mapping[str, torch.Tensor]) -> dict[str, _Block]:
    family, found = families.family(model.config), {}
    for kind, name in (("attention", family.attention), ("mlp", family.mlp)):
        place = f"{family.layers}.{layer}.{name}"
        module = model.get_submodule(place)
        linears = {part: each for part, each in module.named_modules() if isinstance(each, nn.Linear)}
        weights = {part: dense[f"{place}.{part}"].detach().to(each.weight.device) for part, each in linears.items()}
        found[kind] = _Block(module, place, linears, weights)
    return found


def _rebuilt(calls: list[Call], block: _Block, scope: str, share: float, target: Target) -> dict:
    """Rebuild the masks of a block that is called so on the samples; its row."""
    begin = time.perf_counter()
    means, before, wanted = _mean_squares(block, calls)
    scores = [block.dense[name].float().abs() * mean.sqrt() for name, mean in means.items()]
    for name, score in zip(block.linears, scores):
        check_finite("scores", score, f"{block.place}.{name}", "rebuild")
    keeps = [linear.weight != 0 for linear in block.linears.values()]
    new = swapped(scores, keeps, scope, share, target)
    for (name, linear), now in zip(block.linears.items(), new):
        linear.weight.copy_(torch.where(now, block.dense[name], 0))
    found = [_output(block.module(*given, **options)) for given, options in calls]
    check_finite("outputs", torch.stack([output.abs().max() for output in found]), block.place, "rebuild")
    after = sum(_error(sparse, dense) for sparse, dense in zip(found, wanted))
    whole = sum(float(dense.double().square().sum()) for dense in wanted)
    row = {"swaps": sum(int((now & ~old).sum()) for old, now in zip(keeps, new))}
    row |= {"before": before / whole if whole else 0.0, "after": after / whole if whole else 0.0}
    return row | {"seconds": time.perf_counter() - begin}


def _mean_squares(block: _Block, calls: list[Call]) -> tuple[dict[str, torch.Tensor], float, list[torch.Tensor]]:
    """By the names of the linear layers the mean over samples of the squared gradient at the dense weights, float32;
    the squared error of the sparse block; and what the dense one puts out, sample by sample.
    """
    means = {name: torch.zeros(weight.shape, device=weight.device) for name, weight in block.dense.items()}
    own = {name: _wide(value.detach()) for name, value in block.module.named_parameters()}
    leaves = {f"{name}.weight": weight.float().clone().requires_grad_() for name, weight in block.dense.items()}
    error, wanted = 0.0, []
    for given, options in calls:
        sparse = _output(block.module(*given, **options)).float()
        with torch.enable_grad():
            wide = _wide(given), {name: _wide(value) for name, value in options.items()}
            dense = _output(functional_call(block.module, own | leaves, *wide))
            gradients = torch.autograd.grad((sparse - dense).square().mean(), list(leaves.values()))
        for mean, gradient in zip(means.values(), gradients):
            mean.add_(gradient.square() / len(calls))
        wanted.append(dense.detach())
        error += _error(sparse, wanted[-1])
    return means, error, wanted


def _wide(value: Any) -> Any:
    """Tensors of a half format in float32, and those in a tuple of them; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_wide(part) for part in value)
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _output(found: Any) -> torch.Tensor:
    return found[0] if isinstance(found, tuple) else found


def _error(sparse: torch.Tensor, dense: torch.Tensor) -> float:
    return float((sparse.double() - dense.double()).square().sum())
