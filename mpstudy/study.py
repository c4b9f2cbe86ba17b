"""What the notebooks share: one model with its units, calibration samples and evaluation texts, every result
cached by content.
"""

import copy
import math
import shutil
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial

import numpy as np
import torch

from . import memory, pruners
from .errors import check_choice
from .evaluation import cost, perplexity
from .inputs import corpora, models
from .inputs.tokens import check_room, leading
from .repair import REPAIRS, repair
from .sparse import METHODS, UPDATES
from .sparse.importance import ELEMENTWISE, element_scores
from .sparse.masks import Target
from .sparse.sequential import check_method, prune_layers
from .stability.arithmetic import arithmetic
from .store import digests
from .store.cache import Step, cached_file, cached_json
from .store.files import alone
from .structure import surgery
from .structure.families import family
from .structure.plan import Plan
from .structure.scores import Scores
from .structure.shares import plan_share, removed_shares, unit_sizes
from .structure.units import Units, prunable_units

CALIBRATION = ("calibration", "samples", "length")
BATCH_TOKENS = 1280  # of one backward pass


@dataclass(frozen=True)
class Timed:
    """What a piece of work gave, its seconds, and the bytes that it held at most beside what was there before."""

    value: object
    seconds: float
    peak: int | None


@dataclass(kw_only=True)
class Study:
    """A model under study.

    ``layers``: inclusive range such as ``"4-25"``, or what else :func:`mpstudy.structure.units.prunable_units` takes.
    ``samples`` x ``length``: calibration tokens. ``windows`` windows of ``window`` tokens are read from each evaluation
    corpus.
    """

    model_name: str
    layers: str
    calibration: str
    samples: int
    length: int
    corpora: list[str] = field(default_factory=list)
    window: int = 128
    windows: int = 10

    @cached_property
    def model(self):
        """The dense model in fp32."""
        return models.load_model(self.model_name)

    @cached_property
    def tokenizer(self):
        """The tokenizer of the model."""
        return models.load_tokenizer(self.model_name)

    @cached_property
    def units(self) -> Units:
        """The units that may be pruned."""
        return prunable_units(self.model, self.layers)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Parameters of one unit, by the key of its set."""
        return unit_sizes(self.model, self.units)

    @cached_property
    def texts(self) -> dict[str, torch.Tensor]:
        """Evaluation windows by corpus, int64 (windows, window), or window + 1 where they begin with BOS."""
        check_room(self.model.config, self.window, leading(self.tokenizer))
        size = {"window": self.window, "max_windows": self.windows}
        return {name: corpora.corpus_windows(self.tokenizer, name, **size) for name in self.corpora}

    @property
    def predicted(self) -> int:
        """Predicted tokens of an evaluation text, of the shortest where they differ."""
        return min(windows.numel() - len(windows) for windows in self.texts.values())

    def calibrated(self, **changes) -> "Study":
        """The same loaded model with another ``calibration`` corpus, ``samples`` or ``length``."""
        for name in changes:
            check_choice("calibration setting", name, CALIBRATION)
        loaded = {"model": self.model, "tokenizer": self.tokenizer, "units": self.units}
        other = copy.copy(self)
        vars(other).update(loaded | changes)
        return other

    def with_layers(self, layers: str) -> "Study":
        """The same loaded model with the units of other ``layers``."""
        other = self.calibrated()
        other.layers = layers
        del other.units  # it finds its own
        return other

    def on_texts(self, corpora: list[str]) -> "Study":
        """The same loaded model, evaluated on other ``corpora``."""
        other = self.calibrated()
        other.corpora = corpora
        vars(other).pop("texts", None)  # it cuts its own
        return other

    def batches(self, seed: int) -> list[torch.Tensor]:
        """The calibration sample of ``seed``, int64 (samples, length), or length + 1 with BOS, as one batch or, where
        that would be too much for the memory, as equally large ones. A seed's larger samples begin with its smaller
        ones.
        """
        check_room(self.model.config, self.length, leading(self.tokenizer))
        size = {"samples": self.samples, "length": self.length}
        return self._batched(corpora.calibration_batch(self.tokenizer, self.calibration, seed=seed, **size))

    def scores(self, pruner: str, *, sample: int, seed: int = 0, **settings) -> Scores:
        """Scores of the model as it is now (perturbed inside a ``with`` block) on calibration sample ``sample``. Their
        ``meta`` tells ``seconds``, and as ``peak_bytes`` the most memory that was held beside the model.
        """
        return self._scored(pruner, self.batches(sample), seed, settings)

    def averaged_scores(self, pruner: str, parts: int, *, sample: int, seed: int = 0, **settings) -> Scores:
        """The mean of the scores of ``parts`` samples, which together are the sample of ``parts`` times as many rows:
        its tokens and its gradients, but what has other signs in two parts does not cancel. The first is ``sample``
        itself; those of another ``sample`` are drawn independently. ``meta`` holds the sums over the parts.
        """
        rows = torch.cat(self.calibrated(samples=parts * self.samples).batches(sample)).split(self.samples)
        found = [self._scored(pruner, self._batched(part), seed, settings) for part in rows]
        values = {key: torch.stack([each.values[key] for each in found]).mean(0) for key in self.units.counts}
        counted = [name for name in ("gradients", "seconds") if name in found[0].meta]
        sums = {name: sum(each.meta[name] for each in found) for name in counted}
        return Scores(values, {"pruner": pruner, "parts": parts} | sums)

    def plan(self, scores: Scores, share: float, scope: str = "local") -> Plan:
        """The units of lowest score that hold ``share`` of the parameters of the prunable layers."""
        return plan_share(scores, self.units, self.sizes, share, scope)

    def removed(self, plan: Plan) -> dict[str, float]:
        """What a plan removes of the prunable layers, the model, the heads and the channels (shares)."""
        return removed_shares(plan, self.units, self.sizes, cost.parameter_count(self.model))

    def pruned(self, plan: Plan):
        """A copy of the model with the planned units removed."""
        return surgery.remove_units(copy.deepcopy(self.model), plan)

    def repaired(self, plan: Plan, method: str, *, sample: int, strength: float | None = None) -> tuple:
        """A copy of the model with the planned units removed, repaired by ``method`` on calibration sample ``sample``,
        and a row for each repaired projection (see :func:`mpstudy.repair.repair`).
        """
        smaller, batches = copy.deepcopy(self.model), [] if method == "none" else self.batches(sample)
        return smaller, repair(smaller, plan, batches, method=method, strength=strength)

    def repair(self, plan: Plan, method: str, *, sample: int, strength: float | None = None) -> dict:
        """Of the model that :meth:`repaired` gives, which is thrown away: its ``perplexity`` by corpus, the ``rows`` of
        its projections, and of removal and repair ``seconds`` and ``peak_bytes``, with the model's copy.
        """
        batches = [] if method == "none" else self.batches(sample)
        step = self._step(
            "repairs",
            (repair, perplexity.perplexity, *filter(None, [REPAIRS[method].function])),
            tokens=[*batches, *self.texts.values()],
            settings={"plan": plan.to_json(), "method": method, "strength": strength}
            | {"calibration": [list(batch.shape) for batch in batches]},
        )

        def compute():
            done = timed(partial(self.repaired, plan, method, sample=sample, strength=strength), self.model.device)
            smaller, rows = done.value
            quality = {name: perplexity.perplexity(smaller, windows) for name, windows in self.texts.items()}
            return {"perplexity": quality, "rows": rows, "seconds": done.seconds, "peak_bytes": done.peak}

        return cached_json(step, compute)

    def sparse(self, method: str, target: str | float, *, sample: int, update: str = "none", **settings) -> dict:
        """A copy of the model pruned to single weights (see :mod:`mpstudy.sparse`), which is thrown away: its
        ``perplexity`` by corpus, the ``rows`` of its linear layers, ``peak_bytes`` beside the model, and
        ``prune_seconds``, with those of the scores for masks by them (``method`` ``taylor`` or ``moreau``).
        """
        batches, wanted, scored = self.batches(sample), Target.parse(target), method in ELEMENTWISE
        kind = "masked" if scored else method
        check_method(kind, update)
        used = [METHODS[kind], UPDATES[update], *([ELEMENTWISE[method]] if scored else [])]
        functions = tuple(each.function for each in used if each.function)
        step = self._step(
            "sparse",
            (prune_layers, Target, element_scores, perplexity.perplexity, *functions),
            tokens=[*batches, *self.texts.values()],
            settings={"method": method, "kind": kind, "settings": settings, "update": update, "target": str(wanted)}
            | {"layers": self.layers, "calibration": [list(batch.shape) for batch in batches]},
        )

        def compute():
            pruned = copy.deepcopy(self.model)
            scores = self._element_scores(method, sample, settings) if scored else None
            options = {"update": update, "state": state, "importance": scores.value.__getitem__ if scored else None}
            done = timed(lambda: prune_layers(pruned, batches, self.layers, kind, wanted, **options), pruned.device)
            seconds, peak = done.seconds, done.peak
            if scores:
                seconds += scores.seconds
                held = sum(values.nbytes for values in scores.value.values())
                peak = peak and max(scores.peak, peak + held)
            quality = {name: perplexity.perplexity(pruned, windows) for name, windows in self.texts.items()}
            return {"perplexity": quality, "rows": done.value, "peak_bytes": peak, "prune_seconds": seconds}

        state = step.path(".state")
        with alone(state):
            found = cached_json(step, compute)
            shutil.rmtree(state, ignore_errors=True)
        return found

    def _batched(self, sample: torch.Tensor) -> list[torch.Tensor]:
        """A calibration sample as the fewest equally large batches that fit the memory."""
        rows = len(sample)
        fitting = [n for n in range(1, rows + 1) if rows % n == 0 and n * self.length <= BATCH_TOKENS]
        return list(sample.split(max(fitting, default=1)))

    def _scored(self, pruner: str, batches: list[torch.Tensor], seed: int, settings: dict) -> Scores:
        pruners.check_settings(pruner, settings)
        known = {"pruner": pruner, "settings": pruners.defaults(pruner) | settings, "seed": seed}
        step = self._step(
            "scores",
            (pruners.PRUNERS[pruner].function, prunable_units),
            tokens=batches,
            settings=known | {"units": self.units.counts},
        )

        def compute():
            work = partial(pruners.score, pruner, self.model, batches, self.units, seed=seed, **settings)
            found, found.meta["peak_bytes"] = memory.peak_of(work, self.model.device)
            return found

        return cached_file(step, Scores, compute)

    def _element_scores(self, method: str, sample: int, settings: dict) -> Timed:
        """Scores of single weights. They are as large as the pruned layers, so only the last are kept: enough for a
        sample's sparsities in turn.
        """
        wanted = digests.model_digest(self.model), self.layers, method, sample, settings
        if vars(self).get("_last_scores", (None, None))[0] != wanted:
            self._last_scores = None, None  # gone before the next are made
            work = partial(element_scores, method, self.model, self.batches(sample), self.units, **settings)
            self._last_scores = wanted, timed(work, self.model.device)
        return self._last_scores[1]

    def perplexity(self, model, texts: dict[Hashable, torch.Tensor] | None = None) -> dict[Hashable, dict]:
        """Perplexity of ``model`` (see :func:`mpstudy.evaluation.perplexity.perplexity`) on each evaluation corpus, or
        on each of other ``texts``, int64 (n, window) by name, of windows of any length.
        """
        read = self.texts if texts is None else texts
        step = self._step("perplexity", (perplexity.perplexity,), models=(model,))
        work = partial(perplexity.perplexity, model)
        return {name: cached_json(step.on(windows), partial(work, windows)) for name, windows in read.items()}

    def measured(self, model, **facts) -> tuple[list[dict], list[np.ndarray]]:
        """A row a corpus, in the order of ``corpora``: ``facts``, then ``corpus``, ``perplexity``, ``stderr``, ``nll``,
        ``tokens`` (predicted), ``window`` (tokens of text). And the nats per token of each of its windows, one array
        (windows,) a corpus.
        """
        kept = ("perplexity", "stderr", "nll", "tokens")
        found, size = self.perplexity(model), {"window": self.window}
        rows = [facts | {"corpus": corpus} | {name: of[name] for name in kept} | size for corpus, of in found.items()]
        return rows, [np.array(of["losses"]) for of in found.values()]

    def window_rows(self, losses: dict[tuple, Iterable[np.ndarray]], names: Sequence[str]) -> list[dict]:
        """The rows of a table ``windows``: ``names`` for the parts of each key of ``losses`` (of a model, arrays as
        :meth:`measured` gives them), then ``corpus``, ``window`` (its number) and ``nll`` (nats per token).
        """
        return [
            dict(zip(names, key, strict=True)) | {"corpus": corpus, "window": number, "nll": float(value)}
            for key, texts in losses.items()
            for corpus, values in zip(self.corpora, texts, strict=True)
            for number, value in enumerate(values)
        ]

    def divergence(self, first, second, corpus: str, most: int) -> dict:
        """How differently two models continue a corpus (see :func:`mpstudy.evaluation.perplexity.divergence`), on at
        ``most`` of its windows, evenly spaced.
        """
        windows = self.texts[corpus]
        windows = windows[:: math.ceil(len(windows) / most)]
        step = self._step("divergence", (perplexity.divergence,), models=(first, second), tokens=windows)
        return cached_json(step, partial(perplexity.divergence, first, second, windows))

    def zero_shot(self, model, tasks: list[str], limit: int) -> list[dict]:
        """Zero-shot rows of ``model`` (see :func:`mpstudy.evaluation.zeroshot.evaluate_tasks`)."""
        from .evaluation import zeroshot  # lm-eval takes seconds to import; only one notebook needs it

        known = {"tasks": tasks, "items": [zeroshot.content(task, limit) for task in tasks]}
        known |= {"tokenizer": digests.tokenizer_digest(self.tokenizer)}
        step = self._step("zeroshot", (zeroshot.evaluate_tasks,), models=(model,), settings=known)
        work = partial(zeroshot.evaluate_tasks, model, self.tokenizer, tasks, limit=limit)
        return cached_json(step, lambda: {"rows": work()})["rows"]

    def recover(self, model, training: list[dict], validation: list[dict], recipe, *, seed: int, log=lambda row: None):
        """The recovered (merged) model and its adapter (see :mod:`mpstudy.recovery.lora`)."""
        from .recovery import examples, lora  # PEFT takes seconds to import

        encoded = [
            examples.encode(self.tokenizer, rows, recipe.cutoff, recipe.loss_on) for rows in (training, validation)
        ]
        known = {"examples": encoded, "recipe": asdict(recipe), "seed": seed}
        step = self._step("adapters", (lora.train_adapter, type(recipe)), models=(model,), settings=known)
        state = step.path(".state")
        (base,) = step.model_digests
        options = {"recipe": recipe, "seed": seed, "log": log, "state": state, "base": base["weights"]}
        adapter = cached_file(step, lora.Adapter, partial(lora.train_adapter, model, *encoded, **options))
        state.unlink(missing_ok=True)
        return lora.merge_adapter(model, adapter, base=base["weights"]), adapter

    def _step(self, kind: str, code: tuple[Callable, ...], *, models=None, tokens=(), settings: dict | None = None):
        """A step on this study's model, or on ``models``. What a pruned or emulated model computes depends also on the
        adapter of its family, which is one of the names used, and on the emulation.
        """
        names = (self.model.config.model_type,)
        return Step(kind, (*code, family, arithmetic), models or (self.model,), tokens, settings or {}, names)


def timed(work: Callable, device) -> Timed:
    """What ``work()`` gives, how long it took and how much memory."""
    begin = time.perf_counter()
    value, peak = memory.peak_of(work, device)
    return Timed(value, time.perf_counter() - begin, peak)
