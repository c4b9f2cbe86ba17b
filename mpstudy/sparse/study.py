"""Unstructured pruning inside a study: pruned, measured, cached and resumable."""

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..memory import peak_of
from ..stability import arithmetic
from ..store import cache, digests
from .importance import ELEMENTWISE, element_scores
from .masks import Target
from .sequential import prune_layers


def sparse(study, method: str, target: str | float, sample: int, update: str, settings: dict) -> dict:
    """See :meth:`mpstudy.study.Study.sparse`."""
    batches, wanted = study.batches(sample), Target.parse(target)
    calibrated = {
        "model": digests.weights_digest(study.model),
        "tokens": digests.tokens_digest(batches),
        "layers": study.layers,
        "method": [method, settings],
        "arithmetic": arithmetic.name_of(study.model),
        "threads": torch.get_num_threads(),
    }
    texts = [digests.tokens_digest(windows) for windows in study.texts.values()]
    key = calibrated | {"update": update, "target": str(wanted), "texts": texts}
    options = {"update": update, "state": cache.path_of("sparse", key, __name__, ".state")}

    def compute():
        pruned, scores = copy.deepcopy(study.model), None
        if method in ELEMENTWISE:
            score = partial(element_scores, method, study.model, batches, study.units, **settings)
            scores = _once(json.dumps(calibrated), score, pruned.device)
            options["importance"] = scores.values.__getitem__
        kind = "masked" if scores else method
        done = _timed(lambda: prune_layers(pruned, batches, study.layers, kind, wanted, **options), pruned.device)
        seconds, peak = done.seconds, done.peak
        if scores:
            seconds += scores.seconds
            peak = peak and max(scores.peak, peak + sum(values.nbytes for values in scores.values.values()))
        perplexity = study.perplexity(pruned)
        shutil.rmtree(options["state"], ignore_errors=True)
        return {"perplexity": perplexity, "rows": done.values, "peak_bytes": peak, "prune_seconds": seconds}

    return cache.cached_json("sparse", key, __name__, compute)


@dataclass(frozen=True)
class _Timed:
    """What a piece of work gave, its seconds, and the bytes that it held at most."""

    values: object
    seconds: float
    peak: int | None


def _timed(work: Callable, device) -> _Timed:
    begin = time.perf_counter()
    values, peak = peak_of(work, device)
    return _Timed(values, time.perf_counter() - begin, peak)


_LAST: dict[str, _Timed] = {}  # as large as the pruned layers, so one alone: enough for a sample's sparsities in turn


def _once(key: str, score: Callable, device) -> _Timed:
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = _timed(score, device)
    return _LAST[key]
