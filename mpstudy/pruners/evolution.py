"""Search for Efficient LLMs (arXiv 2409.17372): the widths of the layers and their units, by evolution.

Candidates are masks that keep as many units over all layers, each layer its own part of them. The fittest, by the
perplexity of the masked model on the calibration sample, are the parents of the next generation. An importance says
first which units a layer of a given width inherits. Other than in the paper, depth is not searched, units are whole
head groups instead of dimensions inside heads, and heads and channels have each the number that plans of other scores
remove. What follows in the paper, the reformation of the weights that stay, is a repair of its own.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import StudyError
from ..gradients.forward import forward_loss
from ..parameters import Count, CountOrZero, checked
from ..registry import Look
from ..store.state import State, identity
from ..structure.budget import check_budget, even_removal, of_kinds
from ..structure.hooks import check_maskable, masked, watched
from ..structure.scores import Scores, unit_scores
from ..structure.units import Units, UnitSet
from ..structure.weights import seeded
from .offspring import Mask, Offspring
from .registry import PRUNERS

BLACK = "#000011"
DAMPING = 0.01  # of the mean diagonal of the Gram matrix, as in SparseGPT


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """The settings of the pruner ``evolution``; the sizes are those of the paper, whose fitness has 5 x 2048 tokens.

    ``ratio`` is what ``prune --scope global`` is to remove, of the ``units`` or (``of``) of the ``parameters``. A
    generation is ``population`` candidates: ``parents`` from the one before, ``mutations`` and ``crossovers`` of them,
    and new ones for the rest.
    """

    ratio: float = 0.2
    of: str = "units"
    generations: int = 50
    population: int = 100
    mutations: int = 50
    crossovers: int = 30
    parents: int = 10

    def __post_init__(self) -> None:
        check_budget(self.ratio, self.of)
        for name in ("generations", "population", "parents"):
            checked(Count, f"{name} of pruner 'evolution'", getattr(self, name))
        for name in ("mutations", "crossovers"):
            checked(CountOrZero, f"{name} of pruner 'evolution'", getattr(self, name))
        if (parts := self.parents + self.mutations + self.crossovers) > self.population:
            raise StudyError(
                f"population of pruner 'evolution' must be at least {parts}, its parents, mutations and crossovers, "
                f"not {self.population}"
            )

    def evaluations(self, generations: int) -> int:
        """Candidates whose loss is read in so many generations: parents are not read again."""
        return generations * (self.population - self.parents) + self.parents if generations else 0


EVOLUTION = Evolution()


@PRUNERS.register("evolution", look=Look("evolution", BLACK, "*"), settings=EVOLUTION)
def evolution(
    model: nn.Module,
    batches: Sequence[torch.Tensor],
    units: Units,
    *,
    seed: int = 0,
    log: Callable[[dict], None] = lambda row: None,
    state: str | Path | None = None,
    **settings: Any,
) -> Scores:
    """The fittest mask that is found, as scores: the plan with scope ``global`` at the ratio that was searched for is
    this mask. Units that stay score in (1, 2], others in (0, 1], by the rank of their importance among those of their
    kind. ``settings`` are fields of :class:`Evolution`.

    ``log`` receives a row a candidate: ``step`` (evaluated) of ``steps``, its ``loss`` (nats per token) and the
    ``lowest`` so far. ``state``: a file that keeps each finished generation; a call that finds it there goes on, and
    ends with the same bits. The metadata tells the ``loss`` of the dense model, ``loss_even`` of the mask that takes
    from each layer the same number by importance, and ``lowest``, that of the fittest after each generation. Raises
    :class:`StudyError` for hidden dimensions, settings out of range, a ``state`` of another run, and a loss that is not
    finite.
    """
    wanted = replace(EVOLUTION, **settings)
    check_maskable(units)
    removed = even_removal(model, units, wanted.ratio, wanted.of)
    kinds = of_kinds(units, removed)
    sets = [unit_set for unit_set in units if unit_set.kind in kinds and unit_set.count > 1]  # a single unit stays
    losses = [forward_loss(model, batch, f"step 0, batch {number}") for number, batch in enumerate(batches)]
    importance = importances(model, batches, units).values

    def fitness(mask: Mask) -> float:
        with masked(model, units, mask):
            return sum(forward_loss(model, batch, "a candidate") for batch in batches) / len(batches)

    known = asdict(wanted) | {"seed": seed}
    key = identity(model, known | {"units": units.counts}, tokens=batches) if state else {}
    search = Search(Offspring(sets, importance), removed, fitness, wanted, seed)
    mask = search.run(State(state, key), log)
    forwards = wanted.evaluations(wanted.generations)
    meta = {"pruner": "evolution", "loss": sum(losses) / len(losses), "gradients": 0, "forwards": forwards}
    return Scores(_as_scores(units, mask, importance), meta | search.report() | known)


class Search:
    """The parents of the next generation, fittest first, and how they are found."""

    def __init__(
        self,
        offspring: Offspring,
        removed: dict[str, int],
        fitness: Callable[[Mask], float],
        settings: Evolution,
        seed: int,
    ):
        self.offspring, self.fitness, self.settings, self.seed = offspring, fitness, settings, seed
        self.even = offspring.by_importance(removed)
        self.parents: list[tuple[float, Mask]] = []
        self.lowest: list[float] = []  # loss, by generation
        self.first = math.nan

    def run(self, store: State, log: Callable[[dict], None] = lambda row: None) -> Mask:
        """The fittest mask after all generations that are left, after those that ``store`` holds."""
        if found := store.load():
            self._take(*found)
        while len(self.lowest) < self.settings.generations:
            self.generation(log)
            store.save(*self._kept())
        return self.parents[0][1]

    def generation(self, log: Callable[[dict], None] = lambda row: None) -> None:
        """Read the loss of new candidates, and let the fittest of them and their parents be parents."""
        wanted, found = self.settings, list(self.parents)
        total = wanted.evaluations(wanted.generations)
        for step, mask in enumerate(self._candidates(), wanted.evaluations(len(self.lowest)) + 1):
            found.append((self.fitness(mask), mask))
            log({"step": step, "steps": total, "loss": found[-1][0], "lowest": min(found, key=_loss)[0]})
        if not self.parents:
            self.first = found[0][0]
        distinct: dict[bytes, tuple[float, Mask]] = {}
        for loss, mask in sorted(found, key=_loss):  # of equals the older stays
            distinct.setdefault(b"".join(kept.numpy().tobytes() for kept in mask.values()), (loss, mask))
        self.parents = list(distinct.values())[: wanted.parents]
        self.lowest.append(self.parents[0][0])

    def report(self) -> dict:
        """What the generations reached, for the metadata of scores."""
        return {"loss_even": self.first, "lowest": self.lowest}

    def _candidates(self) -> Iterable[Mask]:
        """In the first generation the even mask and others of its kind; later mutations, crossovers and such."""
        wanted, number = self.settings, len(self.lowest)
        if not self.parents:
            yield self.even
        bred = [self._mutation] * wanted.mutations + [self._crossover] * wanted.crossovers if self.parents else []
        new = wanted.population - (wanted.parents if self.parents else 1) - len(bred)
        for index, make in enumerate([*bred, *[self._widened] * new]):
            yield make(seeded(self.seed, number, index))

    def _mutation(self, draw: torch.Generator) -> Mask:
        return self.offspring.mutated(self._parent(draw), draw)

    def _crossover(self, draw: torch.Generator) -> Mask:
        return self.offspring.crossed(self._parent(draw), self._parent(draw), draw)

    def _widened(self, draw: torch.Generator) -> Mask:
        return self.offspring.widened(self.even, draw)

    def _parent(self, draw: torch.Generator) -> Mask:
        return self.parents[int(torch.randint(len(self.parents), (), generator=draw))][1]

    def _kept(self) -> tuple[dict[str, torch.Tensor], dict]:
        masks = {key: torch.stack([mask[key] for _, mask in self.parents]) for key in self.even}
        return masks, {"losses": [loss for loss, _ in self.parents], "lowest": self.lowest, "first": self.first}

    def _take(self, masks: dict[str, torch.Tensor], facts: dict) -> None:
        each = [{key: masks[key][index] for key in self.even} for index in range(len(facts["losses"]))]
        self.parents = list(zip(facts["losses"], each))
        self.lowest, self.first = facts["lowest"], facts["first"]


def _loss(candidate: tuple[float, Mask]) -> float:
    return candidate[0]


@torch.no_grad()
def importances(model: nn.Module, batches: Sequence[torch.Tensor], units: Units) -> Scores:
    """``W_ij^2 / [(2 X X^T)^-1]_jj``, summed over the coupled slices of a unit (arXiv 2409.17372): rows of q, k,
    v, gate and up, columns of o and down. The Gram matrix of the inputs gets a hundredth of its mean diagonal, as it is
    singular where a layer has more columns than the sample has tokens. Biases have no part in it.

    One pass of the sample for each layer; the Gram matrices of one layer are held at a time.
    """
    weights, found = units.parameters(model), dict[str, torch.Tensor]()
    for layer in dict.fromkeys(unit_set.layer for unit_set in units):
        of_layer = Units(tuple(unit_set for unit_set in units if unit_set.layer == layer))
        inverse = _inverse_diagonals(model, batches, of_layer)

        def importance(name: str, inverse: dict = inverse) -> torch.Tensor:
            weight = weights[name].float()
            return weight.square() / inverse[name].to(weight.device) if name in inverse else torch.zeros_like(weight)

        found |= unit_scores(of_layer, importance, {}).values
    return Scores({unit_set.key: found[unit_set.key] for unit_set in units}, {})


def _inverse_diagonals(model: nn.Module, batches: Sequence[torch.Tensor], units: Units) -> dict[str, torch.Tensor]:
    """``[(2 X X^T)^-1]_jj`` of the inputs of each linear layer of ``units``, (columns,), by the weight's name."""
    grams: dict[str, torch.Tensor] = {}

    def add(name: str, inputs: torch.Tensor) -> None:
        grams[name] = grams.get(name, 0) + 2 * inputs.t() @ inputs

    with watched(model, [name for name in units.names if name.endswith(".weight")], add):
        for number, batch in enumerate(batches):
            forward_loss(model, batch, f"step 0, batch {number}")
    found = {}
    for name, gram in grams.items():
        gram.diagonal().add_(DAMPING * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny))
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise StudyError(f"the Gram matrix of the inputs of {name.removesuffix('.weight')} cannot be factorised")
        found[name] = torch.cholesky_inverse(factor).diagonal()
    return found


def _as_scores(units: Units, mask: Mask, importance: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mask as scores, the importance as ranks in (0, 1] over a kind and 1 more for what stays."""
    found = {}
    for kind in dict.fromkeys(unit_set.kind for unit_set in units):
        sets: list[UnitSet] = [unit_set for unit_set in units if unit_set.kind == kind]
        values = torch.cat([importance[unit_set.key] for unit_set in sets])
        ranks = values.argsort(stable=True).argsort().add(1) / len(values)
        for unit_set, part in zip(sets, ranks.split([unit_set.count for unit_set in sets])):
            kept = mask.get(unit_set.key, torch.ones(unit_set.count, dtype=torch.bool))
            found[unit_set.key] = part + kept
    return {unit_set.key: found[unit_set.key] for unit_set in units}
