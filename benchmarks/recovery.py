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
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks import steps
from mpstudy.inputs import corpora, models
from mpstudy.recovery import examples, loop, lora
from mpstudy.recovery.recipe import Recipe
from mpstudy.structure.families import linear_layers

MODEL, EVERY = "smollm2-135m-instruct", 15  # every 15th row of the instructions, a step's worth
RECIPE = Recipe(epochs=1, warmup_steps=0)
WARM_UP = 8  # examples
ROUNDS = 3
CARDS = (1, 4, 8)


def main() -> None:
    """Measure both and print tokens per second, without padding, and their ratio."""
    print(
        f"\nLoRA recovery of {MODEL}, steps of {RECIPE.batch_size} instructions of at most {RECIPE.cutoff} tokens, "
        f"{RECIPE.micro_batch_size} rows a backward pass"
    )
    rounds = [{name: _in_own_process(name) for name in METHODS} for _ in range(ROUNDS)]
    baseline = [found["Trainer, padded"] for found in rounds]
    print(f"{'method':22}{'tokens/s':>10}{'ratio':>8}")
    for name in METHODS:
        rates = [found[name] for found in rounds]
        ratio = statistics.median(rate / plain for rate, plain in zip(rates, baseline))
        print(f"{name:22}{statistics.median(rates):10.0f}{ratio:8.2f}", flush=True)

    _estimate()


def _estimate() -> None:
    """Bytes on each card for models of LLaMA's sizes, from their shapes: nothing of it is measured."""
    print(
        "\nestimate of LoRA recovery, GB a card: bf16 weights and 16 bytes for each LoRA value, shared by the cards "
        "(FSDP), the layer at work in whole, and checkpointed activations of 1024 tokens"
    )
    print(f"{'model':14}{'weights':>9}{'LoRA':>7}" + "".join(f"{cards:>4} card(s)" for cards in CARDS))
    for name, (_, everything, hidden, mlp, layers) in steps.LARGE.items():
        lora = RECIPE.r * (11 * hidden + 3 * mlp) * layers  # in + out of each of the seven projections
        layer, kept = 2 * everything / layers, 2 * 1024 * hidden * layers + 2 * 40 * 1024 * (hidden + mlp)
        per_card = [
            ((2 * everything + 16 * lora) / cards + (layer if cards > 1 else 0) + kept) / 1e9 for cards in CARDS
        ]
        print(f"{name:14}{2 * everything / 1e9:9.0f}{16 * lora / 1e9:7.1f}" + "".join(f"{gb:12.0f}" for gb in per_card))


def _in_own_process(name: str) -> float:
    command = [sys.executable, "-m", "benchmarks.recovery", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str) -> float:
    """Tokens per second of one epoch, after a step to warm up."""
    rows = corpora.load_instructions("alpaca-demo")[::EVERY][: RECIPE.batch_size]
    encoded = examples.encode(models.load_tokenizer(MODEL), rows, RECIPE.cutoff)
    torch.manual_seed(0)
    with_lora, train = METHODS[name]
    lora = with_lora(models.load_model(MODEL))
    train(lora, encoded[:WARM_UP])
    begin = time.perf_counter()
    train(lora, encoded)
    return sum(len(ids) for ids, _ in encoded) / (time.perf_counter() - begin)


def _own_lora(model):
    return lora.with_lora(model, RECIPE)


def _own(lora, examples) -> None:
    training = loop.Loop(lora, RECIPE, 100, seed=0)
    for step, chosen in enumerate(training.order(len(examples)), start=1):
        training.step(step, [examples[i] for i in chosen])


def _plain_lora(model):
    """By PEFT alone: :func:`mpstudy.recovery.lora.with_lora` has a faster dropout, which would flatter the baseline."""
    sizes = {"r": RECIPE.r, "lora_alpha": RECIPE.alpha, "lora_dropout": RECIPE.dropout}
    return get_peft_model(model, LoraConfig(target_modules=linear_layers(model), task_type="CAUSAL_LM", **sizes))


def _trainer(lora, examples) -> None:
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
        rows = [{"input_ids": ids, "labels": labels} for ids, labels in examples]
        collator = DataCollatorForSeq2Seq(models.load_tokenizer(MODEL), pad_to_multiple_of=8)
        Trainer(lora, arguments, train_dataset=rows, data_collator=collator).train()


METHODS = {"Trainer, padded": (_plain_lora, _trainer), "mpstudy, packed": (_own_lora, _own)}

if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
