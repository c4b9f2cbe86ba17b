"""Single weights like for like: any method of :mod:`mpstudy.sparse`, by itself, with an update, or with rebuilt masks,
at the same sparsity and on the same calibration text.

A *treatment* is a method, or a method and what follows it: ``"wanda"``, ``"wanda + admm"`` (an update of the weights
that stay), ``"magnitude + block"`` (masks rebuilt by LLM-Barber, paired inside a block).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from .errors import StudyError, check_choice
from .evaluation import perplexity
from .sparse import METHODS, UPDATES
from .sparse.barber import rebuild
from .sparse.errors import reconstruction_errors
from .sparse.finished import linears_of
from .sparse.importance import ELEMENTWISE, element_scores
from .sparse.masks import Target
from .sparse.sequential import prune_layers
from .sparse.swaps import SCOPES
from .store.cache import cached_json
from .structure.units import parse_layers
from .study import Study, timed

Mask = dict[str, torch.Tensor]  # by the name of a linear layer, bool (rows, columns): what is zero


@dataclass(frozen=True)
class Treatment:
    """A method, and the update or the scope of the swaps that follow it."""

    method: str
    update: str = "none"
    scope: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Treatment":
        """Raises :class:`StudyError` for an unknown method, and for what is neither an update nor a scope."""
        method, _, more = text.partition(" + ")
        check_choice(
            "method of single weights", method, [*(name for name in METHODS if name != "masked"), *ELEMENTWISE]
        )
        if not more:
            return cls(method)
        check_choice("update or scope", more, [*(name for name in UPDATES if name != "none"), *SCOPES])
        return cls(method, scope=more) if more in SCOPES else cls(method, update=more)

    @property
    def kind(self) -> str:
        """The name of its method in :data:`mpstudy.sparse.METHODS`."""
        return "masked" if self.method in ELEMENTWISE else self.method


@dataclass(frozen=True)
class Treated:
    """A sparse model, and the seconds and most bytes beside the dense one that it took, with scores and its copy."""

    model: Any
    seconds: float
    peak: int | None


@dataclass(kw_only=True)
class SingleWeights(Study):
    """A :class:`Study` of treatments. ``settings``: those of the scores of single weights, by the name of their pruner.
    ``held_out``: the evaluation corpus on which reconstruction errors are out-of-sample.
    """

    settings: dict[str, dict]
    held_out: str

    @cached_property
    def dense(self) -> dict[str, torch.Tensor]:
        """The weights of the linear layers in ``layers``, by their names; those of the model itself."""
        chosen = parse_layers(self.layers, self.model.config.num_hidden_layers)
        linears = {name: linear for layer in chosen for name, linear in linears_of(self.model, layer).items()}
        return {name: linear.weight.detach() for name, linear in linears.items()}

    def treat(self, treatment: str, target: str | float, sample: int) -> Treated:
        """A copy of the model, as it is now, with single weights set to zero on calibration sample ``sample``."""
        asked, wanted, batches = Treatment.parse(treatment), Target.parse(target), self.batches(sample)
        if wanted.of and asked.scope not in (None, "row"):
            raise StudyError(f"{treatment!r} at {target}: masks of n:m are rebuilt in their rows")

        def work() -> Any:
            model, importance = copy.deepcopy(self.model), None
            if asked.kind == "masked":
                found = element_scores(asked.method, self.model, batches, self.units, **self._settings(asked))
                importance = found.__getitem__
            options = {"importance": importance, "update": asked.update}
            prune_layers(model, batches, self.layers, asked.kind, wanted, **options)
            if asked.scope:
                rebuild(model, self.dense, batches, self.layers, asked.scope, wanted)
            return model

        done = timed(work, self.model.device)
        return Treated(done.value, done.seconds, done.peak)

    def measured_treatment(self, treatment: str, target: str | float, sample: int) -> dict:
        """What the model of a treatment is, which is thrown away: ``perplexity`` by corpus; ``zeros``, the share of all
        weights in ``layers``; ``errors``, a row for each linear layer with its ``layer``, ``linear``, ``in_sample`` and
        ``out_of_sample`` relative squared error; and the ``seconds`` and ``peak_bytes`` that it took.
        """
        asked, wanted, batches = Treatment.parse(treatment), str(Target.parse(target)), self.batches(sample)
        scored, rebuilt = asked.kind == "masked", asked.scope is not None
        used = [METHODS[asked.kind], UPDATES[asked.update], *([ELEMENTWISE[asked.method]] if scored else [])]
        functions = [each.function for each in used] + ([rebuild] if rebuilt else [])
        step = self._step(
            "treatments",
            (SingleWeights, Target, perplexity.perplexity, *filter(None, functions)),
            tokens=[*batches, *self.texts.values()],
            settings={"treatment": vars(asked), "target": wanted, "settings": self._settings(asked)}
            | {"layers": self.layers, "held_out": self.held_out, "batches": [list(batch.shape) for batch in batches]},
        )

        def compute() -> dict:
            made = self.treat(treatment, target, sample)
            quality = {name: perplexity.perplexity(made.model, windows) for name, windows in self.texts.items()}
            found = {"perplexity": quality, "zeros": share_of(zeros_of(made.model, self.dense))}
            return found | {
                "errors": self._errors(made.model, batches),
                "seconds": made.seconds,
                "peak_bytes": made.peak,
            }

        return cached_json(step, compute)

    def zeros(self, treatment: str, target: str | float, sample: int) -> Mask:
        """What a treatment makes zero."""
        return zeros_of(self.treat(treatment, target, sample).model, self.dense)

    def _errors(self, model: Any, batches: list[torch.Tensor]) -> list[dict]:
        inside, outside = (
            reconstruction_errors(model, self.dense, text, self.layers)
            for text in (batches, list(self.texts[self.held_out].split(len(batches[0]))))
        )
        return [
            {"layer": row["layer"], "linear": row["linear"], "in_sample": row["error"], "out_of_sample": other["error"]}
            for row, other in zip(inside, outside, strict=True)
        ]

    def _settings(self, asked: Treatment) -> dict:
        return self.settings.get(asked.method, {}) if asked.kind == "masked" else {}


def zeros_of(model: Any, names: Mapping[str, Any]) -> Mask:
    """The zeros in the linear layers ``names`` of a model."""
    return {name: model.get_submodule(name).weight.detach() == 0 for name in names}


def share_of(mask: Mask) -> float:
    """The share of zeros among all weights of a mask."""
    return sum(int(zeros.sum()) for zeros in mask.values()) / sum(zeros.numel() for zeros in mask.values())


def traded(one: Mask, other: Mask) -> float:
    """The share of the zeros of two masks that trade places: one minus the overlap ``2 |A and B| / (|A| + |B|)`` of
    :func:`mpstudy.stability.overlap`; 0.0 where nothing is zero.
    """
    common = sum(int((zeros & other[name]).sum()) for name, zeros in one.items())
    both = sum(int(zeros.sum()) + int(other[name].sum()) for name, zeros in one.items())
    return 1 - 2 * common / both if both else 0.0
