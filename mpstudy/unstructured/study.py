"""Unstructured pruning inside a study: pruned, measured, cached and resumable."""

import copy
import shutil
import time

import torch

from .. import arithmetic, cache, digests
from ..memory import peak_of
from .importance import ELEMENTWISE, element_scores
from .sequential import prune_layers
from .target import Target


def sparse(study, method: str, target: str | float, sample: int, update: str, settings: dict) -> dict:
    """See :meth:`mpstudy.study.Study.sparse`."""
    batches, wanted = study.batches(sample), Target.parse(target)
    key = {
        "model": digests.weights_digest(study.model),
        "tokens": digests.tokens_digest(batches),
        "texts": [digests.tokens_digest(windows) for windows in study.texts.values()],
        "layers": study.layers,
        "method": [method, update, str(wanted), settings],
        "arithmetic": arithmetic.name_of(study.model),
        "threads": torch.get_num_threads(),
    }
    state = cache.path_of("sparse", key, __name__, ".state")

    def compute():
        pruned = copy.deepcopy(study.model)
        begin = time.perf_counter()
        rows, peak = peak_of(
            lambda: _prune(study, pruned, batches, method, wanted, update, settings, state), pruned.device
        )
        seconds = time.perf_counter() - begin
        perplexity = study.perplexity(pruned)
        shutil.rmtree(state, ignore_errors=True)
        return {"perplexity": perplexity, "rows": rows, "peak_bytes": peak, "prune_seconds": seconds}

    return cache.cached_json("sparse", key, __name__, compute)


def _prune(study, model, batches, method, target, update, settings, state) -> list[dict]:
    importance = None
    if method in ELEMENTWISE:
        importance = element_scores(method, model, batches, study.units, **settings).__getitem__
    method = "masked" if importance else method
    options = {"importance": importance, "update": update, "state": state}
    return prune_layers(model, batches, study.layers, method, target, **options)
