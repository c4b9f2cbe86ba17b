"""What the methods of unstructured pruning cost a linear layer, beside each other: seconds and factorisations.

The methods take turns on one weight and one Gram matrix, so that all meet the same machine; times are medians.
"""

import statistics
import time

import torch
from torch.overrides import TorchFunctionMode

from mpstudy.sparse import METHODS, UPDATES
from mpstudy.sparse.masks import Target
from mpstudy.sparse.refit import reconstruction_error

from . import estimates

SIZE = 1024  # rows and columns
TOKENS = 4096
TARGET = Target(0.6)
ROUNDS = 3


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
    """Measure every method and update and print the table; its numbers."""
    weight, gram = _problem()
    alone = {name: method.function for name, method in METHODS.items() if not method.takes_scores}
    works = {name: (lambda m=method: m(weight, gram, TARGET)) for name, method in alone.items()}
    keep = alone["wanda"](weight, gram, TARGET) != 0
    updates = {name: update.function for name, update in UPDATES.items() if update.function}
    works |= {f"wanda + {name}": (lambda u=update: u(weight, gram, keep)) for name, update in updates.items()}
    seconds = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begin)
    print(
        f"\nunstructured pruning of a {SIZE} x {SIZE} linear layer to {TARGET.sparsity:.0%} zeros, fp32, "
        f"{torch.get_num_threads()} threads, without its Gram matrix; an update without the mask's method"
    )
    print(f"{'method':22}{'s a layer':>11}{'against wanda':>15}{'factorisations':>16}{'error':>9}")
    rows = {}
    for name, work in works.items():
        with _Factorisations() as counter:
            error = reconstruction_error(work(), weight, gram)
        rows[name] = row = {
            "seconds": statistics.median(seconds[name]),
            "ratio": estimates.median_ratio(seconds[name], seconds["wanda"]),
            "factorisations": counter.count,
            "error": error,
        }
        numbers = f"{row['seconds']:11.2f}{row['ratio']:15.1f}{row['factorisations']:16}{row['error']:9.4f}"
        print(f"{name:22}{numbers}", flush=True)
    return rows


def _problem() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the Gram matrix of inputs that are correlated and unequally large."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(SIZE) + torch.randn(SIZE, SIZE, generator=generator) / SIZE**0.5
    scales = torch.logspace(-1, 1, SIZE)[torch.randperm(SIZE, generator=generator)]
    x = torch.randn(TOKENS, SIZE, generator=generator) @ mixing * scales
    return torch.randn(SIZE, SIZE, generator=generator), x.t() @ x


if __name__ == "__main__":
    main()
