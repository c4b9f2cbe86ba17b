"""What the notebooks share: one model with its units, calibration samples and evaluation texts, every result
cached by content.
"""

import copy
import hashlib
import inspect
import json
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import torch

from . import memory, pruners
from .errors import check_choice
from .evaluation import perplexity
from .inputs import corpora, models
from .stability import arithmetic
from .store import cache, digests
from .structure import surgery
from .structure.plan import Plan, make_plan
from .structure.scores import Scores
from .structure.units import Units, prunable_units

CALIBRATION = ("calibration", "samples", "length")
BATCH_TOKENS = 1280  # of one backward pass


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
    corpora: list[str]
    window: int
    windows: int

    @cached_property
    def model(self):
        """The dense model in fp32."""
        return models.load_model(self.model_name)

    @cached_property
    def tokenizer(self):
        return models.load_tokenizer(self.model_name)

    @cached_property
    def units(self) -> Units:
        return prunable_units(self.model, self.layers)

    @cached_property
    def texts(self) -> dict[str, torch.Tensor]:
        """Evaluation windows by corpus, int64 (windows, window)."""
        size = {"window": self.window, "max_windows": self.windows}
        return {name: corpora.corpus_windows(self.tokenizer, name, **size) for name in self.corpora}

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

    def batches(self, seed: int) -> list[torch.Tensor]:
        """The calibration sample of ``seed``, int64 (samples, length), as one batch or, where that would be too much
        for the memory, as equally large ones.
        """
        size = {"samples": self.samples, "length": self.length}
        sample = corpora.calibration_batch(self.tokenizer, self.calibration, seed=seed, **size)
        fitting = [n for n in range(1, self.samples + 1) if self.samples % n == 0 and n * self.length <= BATCH_TOKENS]
        return list(sample.split(max(fitting, default=1)))

    def scores(self, pruner: str, *, sample: int, seed: int = 0, **settings) -> Scores:
        """Scores of the model as it is now (perturbed inside a ``with`` block) on calibration sample ``sample``. Their
        ``meta`` tells ``seconds``, and as ``peak_bytes`` the most memory that was held beside the model.
        """
        batches = self.batches(sample)
        pruners.check_settings(pruner, settings)
        key = {
            "model": digests.weights_digest(self.model),
            "tokens": digests.tokens_digest(batches),
            "pruner": pruner,
            "settings": pruners.defaults(pruner) | settings,
            "units": self.units.counts,
            "arithmetic": arithmetic.name_of(self.model),
            "seed": seed,
            "threads": torch.get_num_threads(),
        }
        module = pruners.PRUNERS[pruner].__module__
        if not module.startswith("mpstudy."):  # a pruner of the user's own, wherever it was written
            key["source"] = inspect.getsource(pruners.PRUNERS[pruner])

        def compute():
            work = partial(pruners.score, pruner, self.model, batches, self.units, seed=seed, **settings)
            found, found.meta["peak_bytes"] = memory.peak_of(work, self.model.device)
            return found

        return cache.cached_file("scores", key, module, Scores, compute)

    def plan(self, scores: Scores, ratio: float, scope: str = "local") -> Plan:
        return make_plan(scores, self.units, ratio, scope)

    def pruned(self, plan: Plan):
        """A copy of the model with the planned units removed."""
        return surgery.remove_units(copy.deepcopy(self.model), plan)

    def sparse(self, method: str, target: str | float, *, sample: int, update: str = "none", **settings) -> dict:
        """A copy of the model pruned to single weights (see :mod:`mpstudy.sparse`), which is thrown away: its
        ``perplexity`` by corpus, the ``rows`` of its linear layers, ``peak_bytes`` beside the model, and
        ``prune_seconds``, with those of the scores for masks by them (``method`` ``taylor`` or ``moreau``).
        """
        from .sparse import study

        return study.sparse(self, method, target, sample, update, settings)

    def perplexity(self, model) -> dict[str, dict]:
        """Perplexity of ``model`` on each evaluation corpus (see :func:`mpstudy.evaluation.perplexity.perplexity`)."""
        digest = digests.weights_digest(model)
        found = {}
        for name, windows in self.texts.items():
            key = {
                "model": digest,
                "tokens": digests.tokens_digest(windows),
                "arithmetic": arithmetic.name_of(model),
                "threads": torch.get_num_threads(),
            }
            compute = lambda windows=windows: perplexity.perplexity(model, windows)  # noqa: E731
            found[name] = cache.cached_json("perplexity", key, "mpstudy.evaluation.perplexity", compute)
        return found

    def divergence(self, first, second, corpus: str) -> dict:
        """How differently two models continue a corpus (see :func:`mpstudy.evaluation.perplexity.divergence`)."""
        windows = self.texts[corpus]
        key = {
            "models": [digests.weights_digest(first), digests.weights_digest(second)],
            "tokens": digests.tokens_digest(windows),
            "threads": torch.get_num_threads(),
        }
        compute = lambda: perplexity.divergence(first, second, windows)  # noqa: E731
        return cache.cached_json("divergence", key, "mpstudy.evaluation.perplexity", compute)

    def zero_shot(self, model, tasks: list[str], limit: int) -> list[dict]:
        """Zero-shot rows of ``model`` (see :func:`mpstudy.evaluation.zeroshot.evaluate_tasks`)."""
        from .evaluation import zeroshot  # lm-eval takes seconds to import; only one notebook needs it

        key = {
            "model": digests.weights_digest(model),
            "tokenizer": digests.tokenizer_digest(self.tokenizer),
            "items": [zeroshot.content(task, limit) for task in tasks],
            "threads": torch.get_num_threads(),
        }
        compute = lambda: {"rows": zeroshot.evaluate_tasks(model, self.tokenizer, tasks, limit=limit)}  # noqa: E731
        return cache.cached_json("zeroshot", key, "mpstudy.evaluation.zeroshot", compute)["rows"]

    def recover(self, model, training: list[dict], validation: list[dict], recipe, *, seed: int, log=lambda row: None):
        """The recovered (merged) model and its adapter (see :mod:`mpstudy.recovery.lora`)."""
        from .recovery import examples, lora  # PEFT takes seconds to import

        parts = (training, validation)
        encoded = [examples.encode(self.tokenizer, rows, recipe.cutoff, recipe.loss_on) for rows in parts]
        tokens = hashlib.sha256(json.dumps(encoded).encode()).hexdigest()
        key = {"model": digests.weights_digest(model), "tokens": tokens, "recipe": asdict(recipe), "seed": seed}
        key |= {"threads": torch.get_num_threads()}
        state = cache.path_of("adapters", key, "mpstudy.recovery.lora", ".state")
        compute = lambda: lora.train_adapter(  # noqa: E731
            model, self.tokenizer, training, validation, recipe=recipe, seed=seed, log=log, state=state
        )
        adapter = cache.cached_file("adapters", key, "mpstudy.recovery.lora", lora.Adapter, compute)
        return lora.merge_adapter(model, adapter), adapter
