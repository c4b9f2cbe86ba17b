"""How fast LoRA recovery trains beside plain PEFT and transformers' ``Trainer`` with padding: the same model, rows and
settings, each in a process of its own, taking turns.
"""

import json
import statistics
import sys
import tempfile
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from mpstudy.inputs import corpora, models
from mpstudy.recovery import examples, loop, lora
from mpstudy.recovery.recipe import Recipe
from mpstudy.structure.families import linear_layers

from . import estimates
from .apart import in_own_process

MODEL, EVERY = "smollm2-135m-instruct", 15  # every 15th row of the instructions, a step's worth
RECIPE = Recipe(epochs=1, warmup_steps=0)
WARM_UP = 8  # examples
ROUNDS = 3
CARDS = (1, 4, 8)


def main() -> dict:
    """Measure both and print tokens per second, without padding, their ratio, and the estimate; their numbers."""
    print(
        f"\nLoRA recovery of {MODEL}, steps of {RECIPE.batch_size} instructions of at most {RECIPE.cutoff} tokens, "
        f"{RECIPE.micro_batch_size} rows a backward pass"
    )
    rates = {name: [] for name in METHODS}
    for _ in range(ROUNDS):
        for name in METHODS:
            rates[name].append(in_own_process("benchmarks.recovery", name)["tokens_per_second"])
    return {"methods": table(rates), "estimate": estimate()}


def table(rates: dict[str, list[float]]) -> dict:
    """Print and return the medians of tokens per second and of their ratio to the baseline over the rounds."""
    found = {
        name: {
            "tokens_per_second": statistics.median(values),
            "ratio": estimates.median_ratio(values, rates["Trainer, padded"]),
        }
        for name, values in rates.items()
    }
    print(f"{'method':22}{'tokens/s':>10}{'ratio':>8}")
    for name, row in found.items():
        print(f"{name:22}{row['tokens_per_second']:10.0f}{row['ratio']:8.2f}")
    return found


def estimate() -> dict:
    """Print and return bytes on each card for models of LLaMA's sizes, from their shapes: nothing of it is measured."""
    print(
        "\nestimate of LoRA recovery, GB a card: bf16 weights and 16 bytes for each LoRA value, shared by the cards "
        "(FSDP), the layer at work in whole, and checkpointed activations of 1024 tokens"
    )
    print(f"{'model':14}{'weights':>9}{'LoRA':>7}" + "".join(f"{cards:>4} card(s)" for cards in CARDS))
    found = {name: estimates.recovery(shape, RECIPE.r, CARDS) for name, shape in estimates.LARGE.items()}
    for name, row in found.items():
        per_card = "".join(f"{gb:12.0f}" for gb in row["per_card_gb"].values())
        print(f"{name:14}{row['weights_gb']:9.0f}{row['lora_gb']:7.1f}{per_card}")
    return found


def measure(name: str) -> dict:
    """The measurement of one method on the bundled model and the rows of a step."""
    rows = corpora.load_instructions("alpaca-demo")[::EVERY][: RECIPE.batch_size]
    tokenizer = models.load_tokenizer(MODEL)
    encoded = examples.encode(tokenizer, rows, RECIPE.cutoff)
    return {"tokens_per_second": tokens_per_second(name, models.load_model(MODEL), tokenizer, encoded)}


def tokens_per_second(name: str, model, tokenizer, encoded: list[examples.Example]) -> float:
    """Of one epoch of a method over ``encoded`` examples, without padding, after a few examples to warm up."""
    torch.manual_seed(0)
    with_lora, train = METHODS[name]
    lora = with_lora(model)
    train(lora, tokenizer, encoded[:WARM_UP])
    begin = time.perf_counter()
    train(lora, tokenizer, encoded)
    return sum(len(ids) for ids, _ in encoded) / (time.perf_counter() - begin)


def _own_lora(model):
    return lora.with_lora(model, RECIPE)


def _own(lora, tokenizer, encoded) -> None:
    training = loop.Loop(lora, RECIPE, 100, seed=0)
    for step, chosen in enumerate(training.order(len(encoded)), start=1):
        training.step(step, [encoded[i] for i in chosen])


def _plain_lora(model):
    """By PEFT alone: :func:`mpstudy.recovery.lora.with_lora` has a faster dropout, which would flatter the baseline."""
    sizes = {"r": RECIPE.r, "lora_alpha": RECIPE.alpha, "lora_dropout": RECIPE.dropout}
    return get_peft_model(model, LoraConfig(target_modules=linear_layers(model), task_type="CAUSAL_LM", **sizes))


def _trainer(lora, tokenizer, encoded) -> None:
    """Padded to the longest row of a batch and a multiple of 8, as LLM-Pruner trains."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=RECIPE.micro_batch_size,
            gradient_accumulation_steps=RECIPE.batch_size // RECIPE.micro_batch_size,
            num_train_epochs=1,
            learning_rate=RECIPE.lr,
            warmup_steps=RECIPE.warmup_steps,
            logging_steps=1000,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        rows = [{"input_ids": ids, "labels": labels} for ids, labels in encoded]
        collator = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)
        Trainer(lora, arguments, train_dataset=rows, data_collator=collator).train()


METHODS = {"Trainer, padded": (_plain_lora, _trainer), "mpstudy, packed": (_own_lora, _own)}

if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
