"""Recovery: LoRA fine-tuning of a pruned model on instructions, merged in fp32.

The recipe is LLM-Pruner's (arXiv 2305.11627, section 4.1): PEFT LoRA on all seven projections, Alpaca's prompt
template, loss on the response alone, AdamW with linear warm-up and decay. Its sizes are scaled by the profile.
"""

import copy
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch.nn import functional
from transformers import get_linear_schedule_with_warmup

from . import tensorfile
from .errors import StudyError
from .recipe import Recipe

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IGNORED = -100  # label of tokens without a loss


@dataclass(frozen=True)
class Adapter:
    """Trained LoRA weights by PEFT's names; ``meta`` holds the recipe and ``history``, one row per logged step."""

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
    model, tokenizer, training, validation, *, recipe: Recipe, seed: int = 0, log=lambda row: None
) -> Adapter:
    """Train LoRA weights for ``model``, which is not changed.

    ``training`` and ``validation`` are instruction rows (``instruction``, ``input``, ``output``). ``seed`` draws the
    data order, the initial LoRA weights and the dropout; no global random state is changed. ``log`` receives a row
    after every step (``step``, ``steps``, ``loss``) and where the validation loss (nats per response token) was
    measured: before the first step and after each quarter. Raises :class:`StudyError` when the warm-up is not
    shorter than the training, and when a loss is not finite (naming the step).
    """
    examples = encode(tokenizer, training, recipe.cutoff)
    held_out = encode(tokenizer, validation, recipe.cutoff)
    steps = recipe.steps(len(examples))
    measured = {math.ceil(steps * quarter / 4) for quarter in (1, 2, 3, 4)}
    history = []

    def record(row):
        for name in {"loss", "validation_loss"} & row.keys():
            if not math.isfinite(row[name]):
                raise StudyError(f"the recovery {name} is {row[name]} at step {row['step']}; lower lr ({recipe.lr})")
        history.append(row)
        log(row)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft_model = _with_lora(copy.deepcopy(model).float(), recipe)
        trainable = [p for p in peft_model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trainable, lr=recipe.lr, weight_decay=0.0)
        schedule = get_linear_schedule_with_warmup(optimiser, recipe.warmup_steps, steps)
        record(
            {
                "step": 0,
                "steps": steps,
                "validation_loss": response_loss(peft_model, held_out, tokenizer.pad_token_id),
            }
        )
        for step, batch in enumerate(_batches(examples, recipe), start=1):
            loss = _train_step(peft_model, batch, tokenizer.pad_token_id, recipe, optimiser, schedule)
            row = {"step": step, "steps": steps, "loss": loss}
            if step in measured:
                row["validation_loss"] = response_loss(peft_model, held_out, tokenizer.pad_token_id)
            record(row)
        weights = {name: value.detach().cpu() for name, value in get_peft_model_state_dict(peft_model).items()}
    return Adapter(weights, {"recipe": asdict(recipe), "seed": seed, "history": history})


def merge_adapter(model, adapter: Adapter):
    """A copy of ``model`` in fp32 with the adapter's update added to its weights.

    Raises :class:`StudyError` when the adapter was trained on tensors of another shape or changes nothing.
    """
    with torch.random.fork_rng():  # PEFT draws initial weights, which are then replaced
        peft_model = _with_lora(copy.deepcopy(model).float(), Recipe(**adapter.meta["recipe"]))
    own = get_peft_model_state_dict(peft_model)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in adapter.weights.items()}:
        raise StudyError("the adapter does not fit this model: it was trained on another pruned model")
    if not any(bool(value.any()) for name, value in adapter.weights.items() if "lora_B" in name):
        raise StudyError("the adapter changes nothing: all its lora_B weights are zero")
    set_peft_model_state_dict(peft_model, adapter.weights)
    return peft_model.merge_and_unload().eval()


def encode(tokenizer, rows, cutoff: int) -> list[tuple[list[int], list[int]]]:
    """Instruction rows as (token ids, labels); prompt tokens have label -100. Rows with no response within
    ``cutoff`` are dropped.
    """
    if tokenizer.eos_token_id is None:
        raise StudyError("recovery needs a tokenizer with an end-of-text token")
    examples = []
    for row in rows:
        prompt = tokenizer(alpaca_prompt(row), add_special_tokens=False).input_ids
        response = tokenizer(row["output"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        ids, labels = (prompt + response)[:cutoff], ([IGNORED] * len(prompt) + response)[:cutoff]
        if len(prompt) < cutoff:
            examples.append((ids, labels))
    if not examples:
        raise StudyError(f"no instruction row has a response within the first {cutoff} tokens")
    return examples


def alpaca_prompt(row: dict) -> str:
    """The prompt template of Stanford Alpaca (Taori et al. 2023), up to where the response begins."""
    context = ", paired with an input that provides further context" if row["input"] else ""
    given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
    return (
        f"Below is an instruction that describes a task{context}. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n"
    )


@torch.no_grad()
def response_loss(model, examples, pad: int, batch_size: int = 8) -> float:
    """Mean loss in nats over all response tokens of ``examples``."""
    model.eval()
    total = sum(_loss_sum(model, _pad(part, pad)).item() for part in _parts(examples, batch_size))
    return total / _targets(examples)


def _with_lora(model, recipe: Recipe):
    for module in TARGETS:
        if not any(name.endswith(module) for name, _ in model.named_modules()):
            raise StudyError(f"recovery needs a module {module}; this model has none")
    sizes = {"r": recipe.r, "lora_alpha": recipe.alpha, "lora_dropout": recipe.dropout}
    with warnings.catch_warnings():  # PEFT asks transformers by a name that is going away
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, LoraConfig(target_modules=list(TARGETS), task_type="CAUSAL_LM", **sizes))


def _batches(examples, recipe: Recipe):
    for _ in range(recipe.epochs):
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order), recipe.batch_size):
            yield [examples[i] for i in order[start : start + recipe.batch_size]]


def _train_step(model, batch, pad: int, recipe: Recipe, optimiser, schedule) -> float:
    """One step on the mean loss over the batch's response tokens, whatever part of it a backward pass holds."""
    model.train()
    tokens, total = _targets(batch), 0.0
    by_length = sorted(batch, key=lambda example: len(example[0]))  # little padding in each part
    for part in _parts(by_length, recipe.micro_batch_size):
        loss = _loss_sum(model, _pad(part, pad)) / tokens
        loss.backward()
        total += loss.item()
    optimiser.step()
    schedule.step()
    optimiser.zero_grad()
    return total


def _parts(examples, size: int):
    return (examples[start : start + size] for start in range(0, len(examples), size))


def _targets(examples) -> int:
    """Tokens with a loss; the first token of a row has nothing that predicts it."""
    return sum(label != IGNORED for _, labels in examples for label in labels[1:])


def _pad(batch, pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch])
    labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
    return ids, labels, mask


def _loss_sum(model, batch) -> torch.Tensor:
    device = next(model.parameters()).device
    ids, labels, mask = (part.to(device) for part in batch)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    return functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
