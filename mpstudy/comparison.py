"""Structured methods like for like: any pruner of units, of blocks or of directions at the same share of the parameters
and on the same calibration text, as it is or with a repair.

A *pipeline* is a method, or a method and a repair: ``"flap"``, ``"flap + bias"``. A registered pruner takes part by its
name alone.
"""

import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from . import blocks, memory, pruners
from .blocks.registry import BLOCK_PRUNERS
from .errors import StudyError, check_choice
from .evaluation import cost, perplexity
from .repair import REPAIRS, repair
from .slicing.budget import cut_to
from .slicing.slicegpt import slice_model
from .store.cache import cached_file, cached_json
from .structure import families
from .structure.depth import plan_blocks, remove_blocks
from .structure.joint import plan_joint
from .structure.plan import Plan
from .structure.scores import Scores
from .study import Study, timed

SLICED = "slicegpt"
SCOPES = {"flap": "joint", "policy-gradient": "global", "evolution": "global"}  # in which their scores compare


@dataclass(frozen=True)
class Smaller:
    """A model that a pipeline made: ``seconds`` and the most bytes beside the dense model that scores, removal and
    repair took (``peak``), with the smaller model itself, and the ``rows`` of the repair.
    """

    model: Any
    seconds: float
    peak: int | None
    rows: list[dict]


def parse(pipeline: str) -> tuple[str, str]:
    """Method and repair of a pipeline. Raises :class:`StudyError` for an unknown one, and for a repair where no heads
    or channels are removed that it could make up for.
    """
    method, _, mended = pipeline.partition(" + ")
    mended = mended or "none"
    check_choice("structured method", method, [*pruners.PRUNERS, *BLOCK_PRUNERS, SLICED])
    check_choice("repair", mended, REPAIRS)
    if mended != "none" and method not in pruners.PRUNERS:
        raise StudyError(f"{pipeline!r}: a repair makes up for heads and channels, which {method} does not remove")
    return method, mended


@dataclass(kw_only=True)
class Comparison(Study):
    """A :class:`Study` of pipelines. Their share is one of the parameters of the units in ``layers``, wherever in the
    model a method then removes them. ``settings``: those of a pruner of units, by its name.
    """

    settings: dict[str, dict] = field(default_factory=dict)

    @cached_property
    def prunable(self) -> int:
        """Parameters of the units."""
        return sum(self.sizes[unit_set.key] * unit_set.count for unit_set in self.units)

    def plan_of(self, method: str, share: float, sample: int) -> Plan:
        """What a pruner of units or of blocks removes: of blocks the number nearest to the share. ``flap`` chooses
        among the heads and channels of all layers, a search among all units of a kind, the others alike in every layer.
        """
        scores = self.scores_of(method, share, sample)
        if method in BLOCK_PRUNERS:
            every = families.layers(self.model)
            number = round(share * self.prunable / cost.parameter_count(every[0]))
            return plan_blocks(scores, number / len(every))
        scope = SCOPES.get(method, "local")
        if scope == "joint":
            return plan_joint(scores, self.units, self.sizes, share)
        return self.plan(scores, share, scope)

    def scores_of(self, method: str, share: float, sample: int) -> Scores:
        """The scores of a pruner of units, which is given the share if its scores are of one, or of blocks."""
        if method in BLOCK_PRUNERS:
            return self._block_scores(method, sample)
        if method == SLICED:
            raise StudyError(f"{method} removes directions, which have no scores")
        of_share = {"ratio": share, "of": "parameters"} if "ratio" in pruners.defaults(method) else {}
        settings = self.settings.get(method, {}) | of_share
        return self.scores(method, sample=sample, seed=pruners.PRUNERS[method].seed(sample), **settings)

    def make(self, pipeline: str, share: float, sample: int) -> Smaller:
        """A smaller model; scores, removal and repair see the same calibration sample."""
        method, mended = parse(pipeline)
        batches, device = self.batches(sample), self.model.device
        if method == SLICED:
            cut = cut_to(self.model, cost.parameter_count(self.model) - round(share * self.prunable))
            done = timed(lambda: slice_model(self.model, batches, cut), device)
            return Smaller(done.value, done.seconds, done.peak, [])
        plan = self.plan_of(method, share, sample)

        def work() -> tuple:
            model = copy.deepcopy(self.model)
            if method in BLOCK_PRUNERS:
                return remove_blocks(model, plan), []
            return model, repair(model, plan, batches, method=mended)

        done, scored = timed(work, device), self.scores_of(method, share, sample).meta
        peaks = [peak for peak in (done.peak, scored["peak_bytes"]) if peak is not None]
        model, rows = done.value
        return Smaller(model, done.seconds + scored["seconds"], max(peaks, default=None), rows)

    def measured_pipeline(self, pipeline: str, share: float, sample: int) -> dict:
        """What a pipeline's model is: ``perplexity`` by corpus, ``parameters``, what is ``removed`` of those of the
        units and of the model (``removed_model``), ``macs`` of 128 tokens; ``prune_seconds`` and ``peak_bytes`` that it
        took; and the mean ``error_before`` and ``error_after`` of a repair, relative squared errors on its calibration
        text. The model itself is thrown away.
        """
        step = self._step(
            "pipelines",
            (Comparison, perplexity.perplexity, cost.macs),
            tokens=[*self.batches(sample), *self.texts.values()],
            settings={"pipeline": parse(pipeline), "share": share, "layers": self.layers}
            | {"settings": self.settings.get(parse(pipeline)[0], {})},
        )

        def compute() -> dict:
            made = self.make(pipeline, share, sample)
            kept, whole = cost.parameter_count(made.model), cost.parameter_count(self.model)
            found = {"parameters": kept, "removed": (whole - kept) / self.prunable, "removed_model": 1 - kept / whole}
            found |= {"macs": cost.macs(made.model), "prune_seconds": made.seconds, "peak_bytes": made.peak}
            for name in ("before", "after"):
                errors = [row[name] for row in made.rows]
                found[f"error_{name}"] = sum(errors) / len(errors) if errors else None
            quality = {name: perplexity.perplexity(made.model, windows) for name, windows in self.texts.items()}
            return found | {"perplexity": quality}

        return cached_json(step, compute)

    def _block_scores(self, method: str, sample: int) -> Scores:
        batches = self.batches(sample)
        step = self._step("scores", (blocks.score,), tokens=batches, settings={"pruner": method})

        def compute() -> Scores:
            found, peak = memory.peak_of(partial(blocks.score, method, self.model, batches), self.model.device)
            found.meta["peak_bytes"] = peak
            return found

        return cached_file(step, Scores, compute)
