"""Bypass Back-propagation (arXiv 2406.10576): keep probabilities of units, learned by forward passes alone.

Each head group and MLP channel is kept with a probability s of its own. A step draws masks from them, reads the loss
without the units that are not kept, and moves s against the policy gradient of the expected loss; a projection then
keeps the expected number of units. Scores are the probabilities at the end.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import StudyError, check_choice
from ..gradients.forward import forward_loss
from ..parameters import Count, Positive, checked
from ..registry import Look
from ..store.state import State, identity
from ..structure.budget import check_budget, even_removal, of_kinds
from ..structure.hooks import check_maskable, masked
from ..structure.scores import Scores
from ..structure.units import Units, UnitSet
from ..structure.weights import seeded
from .registry import PRUNERS

PURPLE = "#9900ff"
HORIZON = 5  # steps of the moving average of the loss
EPSILON = 1e-7
SAVE_EVERY = 50  # steps

ByKind = dict[str, torch.Tensor]  # over the units of a kind in all layers, one after the other
Loss = Callable[[ByKind, int], float]  # of a mask (True: kept) and the number of the step


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings of the pruner ``policy-gradient``; the sizes are those of the release.

    ``ratio`` is what ``prune --scope global`` is meant to remove, of the ``units`` or (``of``) of the ``parameters``.
    ``start``: the pruner from whose scores the probabilities are made; ``wanda-sp`` is given the ratio.
    """

    ratio: float = 0.2
    of: str = "units"
    steps: int = 15000
    lr: float = 6e-3  # the release has 2e-3 to 6e-3
    batch: int = 8  # calibration samples a step
    masks: int = 2  # drawn a step
    start: str = "wanda-sp"

    def __post_init__(self) -> None:
        check_budget(self.ratio, self.of)
        checked(Count, "batch of pruner 'policy-gradient'", self.batch)
        checked(Positive, "lr of pruner 'policy-gradient'", self.lr)
        if checked(Count, "masks of pruner 'policy-gradient'", self.masks) < 2:
            raise StudyError("masks of pruner 'policy-gradient' must be a whole number of at least 2, not 1")
        check_choice("start of pruner 'policy-gradient'", self.start, PRUNERS.keys() - {"policy-gradient"})


POLICY = Policy()


@PRUNERS.register("policy-gradient", look=Look("policy-gradient", PURPLE, "8"), settings=POLICY)
def policy_gradient(
    model: nn.Module,
    batches: Sequence[torch.Tensor],
    units: Units,
    *,
    seed: int = 0,
    log: Callable[[dict], None] = lambda row: None,
    state: str | Path | None = None,
    **settings: Any,
) -> Scores:
    """Keep probabilities in [0, 1]; ``settings`` are fields of :class:`Policy`. The best unit of a layer scores 1, for
    no layer may lose all, and at the ratio that was learned for, the lowest over all layers are the mask.

    ``log`` receives a row a step: ``step`` (done) of ``steps``, and the mean ``loss`` of its masks (nats per token).
    ``state``: a file that keeps how far it has come; a call that finds it there goes on, and ends with the same bits.
    The metadata tells ``loss`` of the dense model, and ``loss_first`` and ``loss_last``, the moving average of the
    masked models' at both ends. Raises :class:`StudyError` for hidden dimensions, settings out of range, a ``state``
    of another run, and a loss that is not finite.
    """
    policy = replace(POLICY, **settings)
    check_maskable(units)
    removed = of_kinds(units, even_removal(model, units, policy.ratio, policy.of))
    losses = [forward_loss(model, batch, f"step 0, batch {number}") for number, batch in enumerate(batches)]
    of_ratio = {"ratio": policy.ratio, "of": policy.of} if policy.start == "wanda-sp" else {}
    with torch.enable_grad():
        start = PRUNERS[policy.start].function(model, batches, units, seed=seed, **of_ratio)
    values = {key: _probabilities(start.values[key], 1 - policy.ratio) for key in units.counts}
    several = [unit_set for unit_set in units if unit_set.count > 1]  # a single unit stays
    pools = {kind: [unit_set for unit_set in several if unit_set.kind == kind] for kind in removed}
    keep = {kind: sum(unit_set.count for unit_set in sets) - removed[kind] for kind, sets in pools.items()}
    rows = torch.cat(tuple(batches))

    def masked_loss(mask: ByKind, step: int) -> float:
        chosen = torch.randperm(len(rows), generator=seeded(seed, step, "rows"))[: policy.batch]
        with masked(model, units, _by_set(mask, pools)):
            return forward_loss(model, rows[chosen], f"step {step}")

    known = asdict(policy) | {"seed": seed}
    key = identity(model, known | {"units": units.counts}, tokens=rows, start=values.values()) if state else {}
    learner = Learner(_by_kind(values, pools), keep, policy, seed)
    learner.run(masked_loss, State(state, key), log)
    values |= _by_set(learner.s, pools)
    meta = {
        "pruner": "policy-gradient",
        "loss": sum(losses) / len(losses),
        "gradients": 0,
        "forwards": policy.steps * policy.masks,
    }
    return Scores({key: _best_stays(value).float() for key, value in values.items()}, meta | learner.report() | known)


class Learner:
    """The probabilities ``s`` by kind, float64, and how they are learned; ``keep`` units of each kind are expected to
    stay.
    """

    def __init__(self, start: Mapping[str, torch.Tensor], keep: Mapping[str, int], policy: Policy, seed: int):
        self.s = {kind: project(values.double(), keep[kind]) for kind, values in start.items()}
        self.keep, self.policy, self.seed = keep, policy, seed
        self.done, self.baseline, self.first = 0, math.nan, math.nan

    def run(self, loss: Loss, store: State, log: Callable[[dict], None] = lambda row: None) -> None:
        """All steps that are left, after those that ``store`` holds."""
        if found := store.load():
            self.s, (self.done, self.baseline, self.first) = found[0], found[1]["reached"]
        while self.done < self.policy.steps:
            log({"step": self.done + 1, "steps": self.policy.steps, "loss": self.step(loss)})
            if self.done % SAVE_EVERY == 0 or self.done == self.policy.steps:
                store.save(self.s, {"reached": [self.done, self.baseline, self.first]})

    def step(self, loss: Loss) -> float:
        """Draw masks, and move against :func:`estimate` at the rate of a cosine that ends at 0; their mean loss."""
        masks = [self._draw(number) for number in range(self.policy.masks)]
        losses = torch.tensor([loss(mask, self.done) for mask in masks], dtype=torch.float64)
        mean = losses.mean().item()
        self.first = mean if self.done == 0 else self.first
        self.baseline = mean if self.done == 0 else self.baseline + (mean - self.baseline) / HORIZON
        rate = self.policy.lr * (1 + math.cos(math.pi * self.done / self.policy.steps)) / 2
        for kind, s in self.s.items():
            drawn = torch.stack([mask[kind] for mask in masks])
            self.s[kind] = project(s - rate * estimate(drawn, losses, self.baseline, s), self.keep[kind])
        self.done += 1
        return mean

    def report(self) -> dict[str, float]:
        """What the steps reached, for the metadata of scores."""
        return {"loss_first": self.first, "loss_last": self.baseline}

    def _draw(self, number: int) -> ByKind:
        return {
            kind: torch.rand(s.shape, dtype=s.dtype, generator=seeded(self.seed, self.done, number, kind)) < s
            for kind, s in self.s.items()
        }


def estimate(masks: torch.Tensor, losses: torch.Tensor, baseline: float, s: torch.Tensor) -> torch.Tensor:
    """The policy gradient of the expected loss, (units,), from ``masks``, bool (K, units), drawn with probabilities
    ``s`` (units,), and their ``losses`` (K,).

    ``sum_k (L_k - b) (m_k - s) / sqrt((s + 1e-7) (1 - s + 1e-7)) / (K - 1)``: divided by the standard deviation of the
    draw, not by its variance, it is the gradient with respect to s times that standard deviation.
    """
    spread = ((s + EPSILON) * (1 - s + EPSILON)).sqrt()
    return (losses - baseline) @ (masks.double() - s) / spread / (len(masks) - 1)


def project(s: torch.Tensor, total: float) -> torch.Tensor:
    """The nearest point of {0 <= x <= 1, sum x = ``total``}: ``clamp(s - v, 0, 1)`` with v found by bisection.

    The release admits v >= 0 alone, so that the sum may fall below what may stay; here the budget is always met.
    """
    low, high = s.min().item() - 1, s.max().item()  # all 1 there, all 0 here
    for _ in range(100):
        middle = (low + high) / 2
        if (s - middle).clamp(0, 1).sum().item() > total:
            low = middle
        else:
            high = middle
    return (s - high).clamp(0, 1)


def _probabilities(scores: torch.Tensor, kept: float) -> torch.Tensor:
    """The sigmoid of a layer's standardised scores, shifted to the share that is ``kept``."""
    values = scores.double()
    spread = values.std(correction=0).clamp_min(torch.finfo(values.dtype).tiny)
    return ((values - values.mean()) / spread + math.log(kept / (1 - kept))).sigmoid()


def _by_kind(values: Mapping[str, torch.Tensor], pools: Mapping[str, list[UnitSet]]) -> ByKind:
    return {kind: torch.cat([values[unit_set.key] for unit_set in sets]) for kind, sets in pools.items()}


def _by_set(values: ByKind, pools: Mapping[str, list[UnitSet]]) -> dict[str, torch.Tensor]:
    """The inverse of :func:`_by_kind`."""
    return {
        unit_set.key: part
        for kind, sets in pools.items()
        for unit_set, part in zip(sets, values[kind].split([unit_set.count for unit_set in sets]))
    }


def _best_stays(values: torch.Tensor) -> torch.Tensor:
    best = values.clone()
    best[values.argmax()] = 1
    return best
