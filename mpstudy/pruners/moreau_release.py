"""What the released MoreauPruner code computes, so that its numbers can be reproduced and compared.

It differs from the paper's definition: the proximal term has no gradient (``lam`` is dead), the shrinkage tests
``rms > soft * lr`` but multiplies by ``1 - soft / rms``, which flips the sign of every row with rms below ``soft``,
and groups are tensor rows of every parameter, embeddings and norms included. ``corrected_shrink`` and ``proximal``
put the shrinkage and the proximal term right.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..gradients.loss import mean_gradients, only_trainable
from ..registry import PINK, Look
from ..structure.scores import Scores, first_order_scores
from ..structure.units import Units
from ..structure.weights import restored
from .registry import PRUNERS


@PRUNERS.register("moreau-release", look=Look("moreau-release", PINK, "X"))
def moreau_release(
    model: nn.Module,
    batches: Sequence[torch.Tensor],
    units: Units,
    *,
    seed: int = 0,
    steps: int = 10,
    average_last: int = 5,
    lr: float = 2e-4,
    lam: float = 0.2,
    std: float = 0.05,
    soft: float = 5e-6,
    corrected_shrink: bool = False,
    proximal: bool = False,
) -> Scores:
    """``steps`` noisy gradient steps of size ``lr`` on an offset of all parameters, averaged over the ``average_last``.

    ``std``: noise relative to ``|w|``, drawn after ``torch.manual_seed(seed)`` in the release's parameter order (the
    global generator is put back afterwards). ``lam`` acts only with ``proximal``. The metadata tells of each step the
    point from which it starts: ``norms``, the l2 norm of the offset there, and ``losses``, the loss there with the
    step's noise (nats).
    """
    weights = _release_order(model)
    delta = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    mean = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in units.parameters(model).items()}
    losses, norms = [], []
    with only_trainable(model, weights), restored(weights) as original, _seeded(seed):
        for step in range(steps):
            norms.append(sum(float(value.float().norm()) ** 2 for value in delta.values()) ** 0.5)
            _move(weights, original, delta, std)
            loss, gradients = mean_gradients(model, batches, weights, step)
            losses.append(loss)
            for name, value in delta.items():
                gradient = gradients.pop(name)
                value.sub_((gradient.add_(value / lam) if proximal else gradient).mul_(lr))
                _shrink(value, soft, soft * lr, corrected_shrink)
            if step >= steps - average_last:
                for name, value in mean.items():
                    value.add_(delta[name], alpha=1 / min(average_last, steps))
        settings = {
            "steps": steps,
            "average_last": average_last,
            "lr": lr,
            "lam": lam,
            "std": std,
            "soft": soft,
        }
        flags = {"corrected_shrink": corrected_shrink, "proximal": proximal, "seed": seed}
        meta = {"pruner": "moreau-release", "losses": losses, "norms": norms, "gradients": steps * len(batches)}
        return first_order_scores(units, original, mean, meta | settings | flags)


def _shrink(value: torch.Tensor, soft: float, threshold: float, corrected: bool) -> None:
    """Shrink every row of ``value`` in place."""
    rms = value.float().square().mean(dim=-1, keepdim=True).sqrt()
    reach = threshold if corrected else soft
    value.mul_(torch.where(rms > threshold, 1 - reach / rms, torch.zeros_like(rms)).to(value.dtype))


@torch.no_grad()
def _move(
    weights: dict[str, torch.Tensor], original: dict[str, torch.Tensor], delta: dict[str, torch.Tensor], std: float
) -> None:
    for name, weight in weights.items():
        weight.copy_(original[name]).add_(delta[name])
        if std > 0:
            noise = torch.empty(weight.shape).normal_().mul_(std).to(weight.device)
            weight.add_(noise.mul_(original[name].abs()))


def _release_order(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters, tied ones once, in the order in which the release draws noise: its blocks list down before up."""
    named = dict(model.named_parameters())
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in named))
    for i, (first, second) in enumerate(zip(modules, modules[1:])):
        if first.endswith("up_proj") and second.endswith("down_proj"):
            modules[i : i + 2] = second, first
    return {name: named[name] for module in modules for name in (f"{module}.weight", f"{module}.bias") if name in named}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global CPU generator seeded for the block, as the release seeds it, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
