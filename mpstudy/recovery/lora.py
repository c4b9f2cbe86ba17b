"""Recovery: LoRA fine-tuning of a pruned model on instructions, merged in fp32.

The recipe is LLM-Pruner's (arXiv 2305.11627, section 4.1): PEFT LoRA on all seven projections, Alpaca's prompt
template, loss on the response alone, AdamW with linear warm-up and decay. Its sizes are scaled by the profile.
"""

import copy
import math
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from ..errors import StudyError
from ..store import tensorfile
from ..store.digests import tokens_digest, weights_digest
from ..structure.families import family, linear_layers
from . import loop
from .dropout import Dropout
from .examples import check_vocabulary
from .recipe import Recipe

SPARSE = 0.1  # the share of zeros from which on a matrix counts as sparse


@dataclass(frozen=True)
class Adapter:
    """Trained LoRA weights by PEFT's names. ``meta`` holds the recipe, the digest of the ``base`` that they belong to,
    the ``best_step`` that they are from and ``history``, one row per step.
    """

    weights: dict[str, torch.Tensor]
    meta: dict

    def save(self, path: str | Path) -> None:
        """Write safetensors with ``meta`` in the metadata."""
        tensorfile.save(path, "adapter", self.weights, self.meta)

    @classmethod
    def load(cls, path: str | Path) -> "Adapter":
        """Read what :meth:`save` wrote; anything else raises :class:`StudyError`."""
        return cls(*tensorfile.load(path, "adapter"))


def train_adapter(
    model,
    examples,
    held_out,
    *,
    recipe: Recipe,
    seed: int = 0,
    log=lambda row: None,
    state: str | Path | None = None,
    save_every: int = 20,
    base: str | None = None,
) -> Adapter:
    """Train LoRA weights for ``model``, which is not changed, and return those with the lowest validation loss.

    ``examples`` and ``held_out``, for validation, are what :func:`.examples.encode` gives. ``seed`` draws the data
    order, the initial LoRA weights and the dropout; no global random state is changed. ``log`` receives a row after
    every step (``step``, ``steps``, ``loss``) and where the validation loss (nats per target token) was measured:
    before the first step and after each quarter.

    ``state``: a file that keeps the training after every ``save_every`` steps. A call that finds it goes on from there
    and ends with the same bits on the same machine; it stays until the caller, who has kept the adapter, deletes it. In
    several processes, which ``accelerate launch`` or ``torchrun`` starts, each makes the same call and gets the same
    adapter. Under FSDP nothing is kept, which one line on standard error says at the start.

    ``base``: the digest of the model's weights, if the caller has it.

    A family whose attention cannot tell packed examples apart (:attr:`.families.Family.packs`) is trained on padded
    rows, which one line on standard error says.

    Raises :class:`StudyError` for tokens outside the vocabulary, when ``state`` belongs to another training, when the
    warm-up is not shorter than the training, and when a loss is not finite (naming the step).
    """
    check_vocabulary([*examples, *held_out], model.config.vocab_size)
    recipe, steps = _fitting(recipe, model.config), recipe.steps(len(examples))
    measured = {math.ceil(steps * quarter / 4) for quarter in (1, 2, 3, 4)}
    meta = {"recipe": asdict(recipe), "seed": seed, "base": base or weights_digest(model)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = copy.deepcopy(model)  # in fp32, unless the launcher asks for half precision: then LoRA alone is fp32
        lora = with_lora(base.float() if loop.accelerator().mixed_precision == "no" else base, recipe)
        training = loop.Loop(lora, recipe, steps, seed)
        key = meta | {"examples": _digest(examples), "validation": _digest(held_out)}
        key |= {"processes": training.accelerator.num_processes}
        history = loop.load(state, key, training) if state and Path(state).exists() else loop.History()
        if state and training.is_sharded and training.is_main:
            print("a sharded recovery (FSDP) is not kept while it runs: if it stops, it begins anew", file=sys.stderr)
        for row in history.rows:
            log(row)

        def add(row):
            history.add(row, training.weights)
            if training.is_main:
                log(row)

        if not history.rows:
            add({"step": 0, "steps": steps, "validation_loss": training.mean_loss(held_out)})
        for step, chosen in list(enumerate(training.order(len(examples)), start=1))[history.step :]:
            row = {"step": step, "steps": steps, "loss": training.step(step, [examples[i] for i in chosen])}
            if step in measured:
                row["validation_loss"] = training.mean_loss(held_out)
            add(row)
            if state and (step % save_every == 0 or step == steps):
                loop.save(state, key, training, history)
    return Adapter(history.best, meta | {"best_step": history.best_step, "history": history.rows})


def merge_adapter(model, adapter: Adapter, *, base: str | None = None):
    """A copy of ``model`` in fp32 with the adapter's update added to its weights; the zeros of a sparse matrix stay
    (:func:`zeros_kept`). ``base``: as in :func:`train_adapter`.

    Raises :class:`StudyError` when the adapter was trained on another model or changes nothing.
    """
    if adapter.meta["base"] != (base or weights_digest(model)):
        raise StudyError("the adapter does not fit this model: it was trained on another pruned model")
    if not any(bool(value.any()) for name, value in adapter.weights.items() if "lora_B" in name):
        raise StudyError("the adapter changes nothing: all its lora_B weights are zero")
    with torch.random.fork_rng():  # PEFT draws initial weights, which are then replaced
        lora = with_lora(copy.deepcopy(model).float(), Recipe(**adapter.meta["recipe"]))
    set_peft_model_state_dict(lora, adapter.weights)
    return zeros_kept(lora.merge_and_unload(), model).eval()


@torch.no_grad()
def zeros_kept(merged, sparse):
    """``merged`` with the zeros of each sparse matrix of ``sparse``, a model of the same shapes, in place. A matrix is
    sparse if a tenth of it is zero; of a dense one less than a hundredth is, by chance.
    """
    before = dict(sparse.named_parameters())
    for name, parameter in merged.named_parameters():
        if is_sparse(before[name]):
            parameter.masked_fill_((before[name] == 0).to(parameter.device), 0)
    return merged


def is_sparse(weight: torch.Tensor) -> bool:
    """Whether a parameter is a matrix of which a tenth or more is zero."""
    return weight.dim() == 2 and int((weight == 0).sum()) >= SPARSE * weight.numel()


def sparsity(model) -> float:
    """The share of zeros in the sparse matrices of ``model``; 0.0 where it has none."""
    found = [parameter for parameter in model.parameters() if is_sparse(parameter)]
    zeros = sum(int((parameter == 0).sum()) for parameter in found)
    return zeros / max(1, sum(parameter.numel() for parameter in found))


def _fitting(recipe: Recipe, config) -> Recipe:
    if not recipe.packing or family(config).packs:
        return recipe
    print(f"examples of {config.model_type} cannot be packed: each has a padded row of its own", file=sys.stderr)
    return replace(recipe, packing=False)


def _digest(examples) -> str:
    return tokens_digest([torch.tensor(part) for example in examples for part in example])


def with_lora(model, recipe: Recipe):
    """``model`` with PEFT's LoRA on all linear layers of its blocks (for Llama, the seven projections), in place;
    nothing else can be trained any more. Raises :class:`StudyError` for a family without adapter.
    """
    sizes = {"r": recipe.r, "lora_alpha": recipe.alpha, "lora_dropout": recipe.dropout}
    with warnings.catch_warnings():  # PEFT asks transformers by a name that is going away
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        lora = get_peft_model(model, LoraConfig(target_modules=linear_layers(model), task_type="CAUSAL_LM", **sizes))
    for name, module in list(lora.named_modules()) if recipe.dropout else []:
        if name.endswith(".lora_dropout"):
            module["default"] = Dropout(recipe.dropout)
    return lora
