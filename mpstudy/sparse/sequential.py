"""Pruning the layers of a model one after the other, each on what the pruned layers before it put out.

Memory beside the model: the calibration samples at one layer, and the Gram matrices of one layer's inputs.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import dropwhile
from pathlib import Path

import torch
from torch import nn

from ..errors import StudyError, check_choice
from ..store import tensorfile
from ..store.digests import tokens_digest, weights_digest
from ..store.files import replacing
from ..structure import families
from ..structure.units import parse_layers
from . import METHODS, UPDATES
from .finite import check_finite
from .masks import Target
from .refit import reconstruction_error


@torch.no_grad()
def prune_layers(
    model: nn.Module,
    batches: list[torch.Tensor],
    layers: str,
    method: str,
    target: Target,
    *,
    importance: Callable[[str], torch.Tensor] | None = None,
    update: str = "none",
    log: Callable[[dict], None] = lambda row: None,
    state: str | Path | None = None,
) -> list[dict]:
    """Prune all linear layers inside ``layers`` (such as ``"4-25"``) of ``model`` in place.

    Parameters
    ----------
    batches: int64 (samples, tokens) each: calibration.
    method: a name of :data:`mpstudy.sparse.METHODS`; one that takes scores, such as ``masked``, needs the
        ``importance`` of a weight by its parameter's name.
    update: a name of :data:`mpstudy.sparse.UPDATES`, of the weights that the method leaves.
    log: receives each row of the result as it is made.
    state: a folder that keeps every finished layer; a call that finds some goes on after them.

    Returns
    -------
    A row for each linear layer: ``layer``, ``linear``, ``weights`` (their number), ``zeros`` (share), ``error``
    (relative squared reconstruction error on the calibration samples), ``seconds``.

    Raises
    ------
    StudyError: an unknown method or update, a pattern that does not divide a matrix, a ``state`` of another pruning, or
    a number that is not finite, or a matrix that cannot be factorised, in a linear layer, which is named; its layer is
    then not kept in ``state``.
    """
    check_method(method, update)
    if METHODS[method].takes_scores != (importance is not None):
        need = "needs an importance" if importance is None else "takes no importance"
        raise StudyError(f"method {method!r} {need}; those that take scores do, and only they")
    chosen, rows = parse_layers(layers, len(families.layers(model))), []
    for layer in chosen:
        for name, linear in _linears(model, layer).items():
            target.check(linear.in_features, name)
            check_finite("weights", linear.weight, name, method)  # the last layer may be hours away
            if importance:
                check_finite("scores", importance(f"{name}.weight"), name, method)
    settings = {"layers": layers, "method": method, "update": update, "target": str(target)}
    if state and importance:
        scores = (importance(f"{name}.weight") for layer in chosen for name in _linears(model, layer))
        settings["importance"] = tokens_digest(values.float() for values in scores)
    store = _Store(state, model, batches, settings)
    waiting = list(dropwhile(lambda layer: store.load(layer, model, rows), chosen))
    for row in rows:
        log(row)
    inputs = _inputs_of(model, waiting, batches) if waiting else []
    for layer in waiting:
        linears, new = _linears(model, layer), []
        run = partial(_run, families.layers(model)[layer], layer)
        for name, gram in _grams(linears, run, inputs).items():
            score = importance(f"{name}.weight") if importance else None
            done = _prune(name, linears[name], gram, method, update, target, score)
            new.append({"layer": layer, "linear": name} | done)
            log(new[-1])
        store.save(layer, linears, new)
        rows += new
        inputs = [(run(hidden, options), options) for hidden, options in inputs]
    return rows


def check_method(method: str, update: str) -> None:
    """:class:`StudyError` for an unknown method or update."""
    check_choice("method", method, METHODS)
    check_choice("update", update, UPDATES)


def _prune(name: str, linear: nn.Linear, gram, method: str, update: str, target: Target, score) -> dict:
    begin, dense = time.perf_counter(), linear.weight.detach().float().clone()
    words = method if update == "none" else f"{method}, update {update}"
    check_finite("sums of squared inputs", gram, name, words)
    try:
        weight = METHODS[method].function(dense, gram, target, None if score is None else score.to(dense.device))
        if UPDATES[update].function:
            weight = UPDATES[update].function(dense, gram, weight != 0)
    except torch.linalg.LinAlgError as error:
        raise StudyError(f"the Gram matrix of the inputs cannot be factorised in {name} (method {words})") from error
    check_finite("pruned weights", weight.to(linear.weight.dtype), name, words)
    error = reconstruction_error(weight, dense, gram)
    if not math.isfinite(error):
        raise StudyError(f"the reconstruction error is {error}, not finite in {name} (method {words})")
    linear.weight.copy_(weight)
    return {
        "weights": weight.numel(),
        "zeros": float((weight == 0).float().mean()),
        "error": error,
        "seconds": time.perf_counter() - begin,
    }


def _linears(model: nn.Module, layer: int) -> dict[str, nn.Linear]:
    """The linear layers inside a layer by their full names."""
    place = f"{families.family(model.config).layers}.{layer}"
    modules = families.layers(model)[layer].named_modules()
    return {f"{place}.{name}": module for name, module in modules if isinstance(module, nn.Linear)}


def _grams(linears: dict[str, nn.Linear], run: Callable, inputs) -> dict[str, torch.Tensor]:
    """``X^T X`` of the inputs of each linear layer over all batches, float32 (columns, columns)."""
    grams = {
        name: torch.zeros(linear.in_features, linear.in_features, device=linear.weight.device)
        for name, linear in linears.items()
    }

    def adder(name):
        def add(module, arguments):
            x = arguments[0].flatten(0, -2).float()
            grams[name].addmm_(x.t(), x)

        return add

    hooks = [linear.register_forward_pre_hook(adder(name)) for name, linear in linears.items()]
    try:
        for hidden, options in inputs:
            run(hidden, options)
    finally:
        for hook in hooks:
            hook.remove()
    return grams


def _inputs_of(model: nn.Module, layers: list[int], batches) -> list[tuple[torch.Tensor, dict[int, dict]]]:
    """Batch by batch the hidden states (samples, tokens, hidden) at the first of ``layers``, and what else each of them
    is called with: masks of sliding windows are not the same in every layer.
    """
    found = []

    def note(layer, module, arguments, options):
        if layer == layers[0]:
            found.append((arguments[0], {}))
        found[-1][1][layer] = options

    modules = families.layers(model)
    hooks = [modules[layer].register_forward_pre_hook(partial(note, layer), with_kwargs=True) for layer in layers]
    try:
        for batch in batches:
            model.base_model(input_ids=batch.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _run(module: nn.Module, layer: int, hidden: torch.Tensor, options: dict[int, dict]) -> torch.Tensor:
    output = module(hidden, **options[layer])
    return output[0] if isinstance(output, tuple) else output


class _Store:
    """The finished layers of a pruning in a folder; without one nothing is kept."""

    def __init__(self, folder: str | Path | None, model: nn.Module, batches, settings: dict):
        self.folder = Path(folder) if folder else None
        if self.folder:
            self.key = settings | {"model": weights_digest(model), "tokens": tokens_digest(batches)}

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer-{layer}.safetensors"

    def save(self, layer: int, linears: dict[str, nn.Linear], rows: list[dict]) -> None:
        if self.folder:
            weights = {name: linear.weight for name, linear in linears.items()}
            with replacing(self._path(layer)) as partial:
                tensorfile.save(partial, "sparse", weights, {"key": self.key, "rows": rows})

    def load(self, layer: int, model: nn.Module, rows: list[dict]) -> bool:
        """Whether the layer is finished; then its weights go into the model and its rows to ``rows``."""
        if not self.folder or not self._path(layer).is_file():
            return False
        weights, meta = tensorfile.load(self._path(layer), "sparse")
        if different := [name for name in self.key if meta["key"].get(name) != self.key[name]]:
            raise StudyError(f"{self.folder} is of another pruning (other {different[0]}); choose another folder")
        for name, linear in _linears(model, layer).items():
            check_finite("kept weights", weights[name], name, self.key["method"])
            linear.weight.copy_(weights[name])
        rows += meta["rows"]
        return True
