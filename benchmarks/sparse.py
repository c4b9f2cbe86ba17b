"""What the methods of unstructured pruning cost: a linear layer, given its Gram matrix, and a whole layer of a model
beside its Gram matrices and forward passes alone, which each of them takes.

The methods take turns on the same weights and text, so that all meet the same machine; times are medians.
"""

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM

from mpstudy.sparse import METHODS, UPDATES
from mpstudy.sparse.finished import linears_of
from mpstudy.sparse.grams import gram_matrices
from mpstudy.sparse.masks import Target
from mpstudy.sparse.refit import reconstruction_error
from mpstudy.sparse.sequential import prune_layers
from mpstudy.structure.walk import Walk

from . import estimates

SIZE = 1024  # rows and columns
TOKENS = 4096
TARGET = Target(0.6)
ROUNDS = 3
MODEL = {  # two layers as SmolLM2-135M has thirty
    "hidden_size": 576, "num_hidden_layers": 2, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 1024,
}  # fmt: skip
TEXTS = [(16, 128), (128, 128)]  # samples and tokens of calibration
GRAMS = "Gram matrices alone"


class _Factorisations(TorchFunctionMode):
    """Counts calls of ``torch.linalg.cholesky``; a batch of matrices is as many."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.linalg.cholesky:
            self.count += args[0][..., 0, 0].numel()
        return func(*args, **(kwargs or {}))


def main() -> dict:
    """Measure every method and update on a linear layer, and every method on whole layers; the numbers printed."""
    whole = {f"{samples} x {length}": (samples, length) for samples, length in TEXTS}
    return {"linear": linear(), "layers": {name: layers(*size) for name, size in whole.items()}}


def linear() -> dict:
    """Seconds, factorisations and error of every method and update on one linear layer, as they are printed."""
    weight, gram = _problem()
    alone = {name: method.function for name, method in METHODS.items() if not method.takes_scores}
    works = {name: (lambda m=method: m(weight, gram, TARGET)) for name, method in alone.items()}
    keep = alone["wanda"](weight, gram, TARGET) != 0
    updates = {name: update.function for name, update in UPDATES.items() if update.function}
    works |= {f"wanda + {name}": (lambda u=update: u(weight, gram, keep)) for name, update in updates.items()}
    seconds = _in_turn(works)
    print(
        f"\nunstructured pruning of a {SIZE} x {SIZE} linear layer to {TARGET.sparsity:.0%} zeros, fp32, "
        f"{torch.get_num_threads()} threads, without its Gram matrix; an update without the mask's method"
    )
    print(f"{'method':22}{'s a layer':>11}{'against wanda':>15}{'factorisations':>16}{'error':>9}")
    rows = {}
    for name, work in works.items():
        with _Factorisations() as counter:
            error = reconstruction_error(work(), weight, gram)
        rows[name] = row = _times(seconds, name) | {"factorisations": counter.count, "error": error}
        numbers = f"{row['seconds']:11.2f}{row['ratio']:15.1f}{row['factorisations']:16}{row['error']:9.4f}"
        print(f"{name:22}{numbers}", flush=True)
    return rows


def layers(samples: int, length: int) -> dict:
    """Seconds a layer of every method on ``samples`` of ``length`` tokens, and of what each of them takes anyway."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL)).eval()
    batches = list(torch.randint(MODEL["vocab_size"], (samples, length)).split(16))
    last = MODEL["num_hidden_layers"] - 1

    def grams() -> None:
        walk = Walk(model, range(last + 1), batches)
        for layer in range(last + 1):
            gram_matrices(walk, layer, linears_of(model, layer))
            if layer < last:
                walk.advance(layer)

    def prune(method: str) -> None:
        prune_layers(copy.deepcopy(model), batches, f"0-{last}", method, TARGET)

    names = [name for name, method in METHODS.items() if not method.takes_scores]
    seconds = _in_turn({GRAMS: grams} | {name: (lambda m=name: prune(m)) for name in names})
    seconds = {name: [each / (last + 1) for each in values] for name, values in seconds.items()}
    sizes = f"{MODEL['hidden_size']} wide, {MODEL['intermediate_size']} in the MLP"
    print(f"\nwhole layers, {sizes}, on {samples} x {length} tokens, with their Gram matrices and forward passes")
    print(f"{'method':22}{'s a layer':>11}{'against wanda':>15}")
    rows = {name: _times(seconds, name) for name in seconds}
    for name, row in rows.items():
        print(f"{name:22}{row['seconds']:11.2f}{row['ratio']:15.1f}", flush=True)
    return rows


def _in_turn(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each work in :data:`ROUNDS` rounds of all."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def _times(seconds: dict[str, list[float]], name: str) -> dict:
    ratio = estimates.median_ratio(seconds[name], seconds["wanda"])
    return {"seconds": statistics.median(seconds[name]), "ratio": ratio}


def _problem() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the Gram matrix of inputs that are correlated and unequally large."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(SIZE) + torch.randn(SIZE, SIZE, generator=generator) / SIZE**0.5
    scales = torch.logspace(-1, 1, SIZE)[torch.randperm(SIZE, generator=generator)]
    x = torch.randn(TOKENS, SIZE, generator=generator) @ mixing * scales
    return torch.randn(SIZE, SIZE, generator=generator), x.t() @ x


if __name__ == "__main__":
    main()
