"""How fast LoRA recovery trains beside plain PEFT and transformers' ``Trainer`` with padding: the same model, rows and
settings, each in a process of its own, taking turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from transformers import Trainer, TrainingArguments

from . import data, instructions, models, recover, training
from .recipe import Recipe

MODEL, ROWS = "smollm2-135m-instruct", 48
RECIPE = Recipe(epochs=1, batch_size=16, micro_batch_size=4, warmup_steps=1, cutoff=256)
ROUNDS = 3


def main() -> None:
    """Measure both and print tokens per second, without padding, and their ratio."""
    print(
        f"\nLoRA recovery of {MODEL}, {ROWS} instructions, steps of {RECIPE.batch_size}, {RECIPE.cutoff} tokens at most"
    )
    rounds = [{name: _in_own_process(name) for name in METHODS} for _ in range(ROUNDS)]
    baseline = [found["Trainer, padded"] for found in rounds]
    print(f"{'method':22}{'tokens/s':>10}{'ratio':>8}")
    for name in METHODS:
        rates = [found[name] for found in rounds]
        ratio = statistics.median(rate / plain for rate, plain in zip(rates, baseline))
        print(f"{name:22}{statistics.median(rates):10.0f}{ratio:8.2f}", flush=True)


def _in_own_process(name: str) -> float:
    command = [sys.executable, "-m", "mpstudy.bench_recovery", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str) -> float:
    """Tokens per second of one epoch, after a step to warm up."""
    tokenizer = models.load_tokenizer(MODEL)
    examples = instructions.encode(tokenizer, data.load_instructions("alpaca-demo")[:ROWS], RECIPE.cutoff)
    torch.manual_seed(0)
    lora = recover.with_lora(models.load_model(MODEL), RECIPE)
    METHODS[name](lora, examples[: RECIPE.batch_size], tokenizer)
    begin = time.perf_counter()
    METHODS[name](lora, examples, tokenizer)
    return sum(len(ids) for ids, _ in examples) / (time.perf_counter() - begin)


def _own(lora, examples, tokenizer) -> None:
    loop = training.Loop(lora, RECIPE, 100, tokenizer.pad_token_id, seed=0)
    for step, chosen in enumerate(loop.order(len(examples)), start=1):
        loop.step(step, [examples[i] for i in chosen])


def _trainer(lora, examples, tokenizer) -> None:
    """Padded to the longest row of a batch, as the reference trains."""
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
        collate = lambda rows: instructions.padded(rows, tokenizer.pad_token_id)  # noqa: E731
        Trainer(lora, arguments, train_dataset=examples, data_collator=collate).train()


METHODS = {"Trainer, padded": _trainer, "mpstudy, packed": _own}

if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
