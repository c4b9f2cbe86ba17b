"""Pruning the layers of a model one after the other, each on what the pruned layers before it put out.

Memory beside the model: the calibration samples at one layer, and the Gram matrices of one layer's inputs.
"""

import math
import time
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path

import torch
from torch import nn

from ..errors import StudyError, check_choice
from ..store.digests import tokens_digest
from ..structure import families
from ..structure.units import parse_layers
from ..structure.walk import Walk
from . import METHODS, UPDATES
from .finished import Finished, linears_of
from .finite import check_finite
from .grams import gram_matrices
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
        for name, linear in linears_of(model, layer).items():
            target.check(linear.in_features, name)
            check_finite("weights", linear.weight, name, method)  # the last layer may be hours away
            if importance:
                check_finite("scores", importance(f"{name}.weight"), name, method)
    settings = {"layers": layers, "method": method, "update": update, "target": str(target)}
    if state and importance:
        scores = (importance(f"{name}.weight") for layer in chosen for name in linears_of(model, layer))
        settings["importance"] = tokens_digest(values.float() for values in scores)
    finished = Finished(state, model, batches, settings)
    waiting = list(dropwhile(lambda layer: finished.load(layer, model, rows), chosen))
    for row in rows:
        log(row)
    walk = Walk(model, range(waiting[0], waiting[-1] + 1), batches) if waiting else None
    for layer in waiting:
        linears, new = linears_of(model, layer), []
        for name, gram in gram_matrices(walk, layer, linears).items():
            score = importance(f"{name}.weight") if importance else None
            done = _prune(name, linears[name], gram, method, update, target, score)
            new.append({"layer": layer, "linear": name} | done)
            log(new[-1])
        finished.save(layer, linears, new)
        rows += new
        if layer != waiting[-1]:
            walk.advance(layer)
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
