"""The command ``recover``."""

import argparse
import sys
import time
from pathlib import Path

from ..errors import StudyError
from ..inputs.early import check_model, plain_config
from ..inputs.folders import PRUNED
from ..inputs.tokens import check_room, leading
from ..parameters import Count, Seed
from ..recovery.recipe import CHOICES, RULES, Recipe
from ..store.files import sweep
from ..store.writable import check_new_folder
from .inputs import BOS, Checked, add_bos, add_command, add_dtype

LAUNCHED_DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}  # by the precision that Accelerate was given

_MANUAL = """
Fine-tune a pruned model by LoRA on instructions (LLM-Pruner's recipe), merge in fp32 and save it as a pruned
checkpoint.
--instructions is a corpus name (alpaca-demo, alpaca-cleaned); --validation rows are held out, and the weights with the
lowest loss on them are kept. A training that was killed goes on where it was when the same command is given again,
unless it ran under FSDP.
Several processes share the work of each step; on one node and on each of several:

examples:
  python -m mpstudy recover pruned/ --rows 400 --epochs 1 --batch-size 8 --lr 5e-4 --warmup-steps 5 --out recovered/
  torchrun --nproc-per-node 4 -m mpstudy recover pruned/ --instructions alpaca-cleaned --out recovered/
  torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m mpstudy recover ...
"""


def add_commands(commands) -> None:
    """Add this module's command to an argparse sub-parser collection."""
    parser = add_command(commands, "recover", "LoRA recovery of a pruned model", _MANUAL, _recover)
    parser.add_argument("model", metavar="FOLDER")
    parser.add_argument("--instructions", default="alpaca-demo")
    about = "train on so many rows (default: all but the validation rows)"
    parser.add_argument("--rows", action=Checked, kind=Count, type=int, help=about)
    parser.add_argument("--validation", action=Checked, kind=Count, type=int, default=50)
    for name, default in vars(Recipe()).items():
        kind = {"action": Checked, "kind": RULES[name], "type": type(default)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        if name in CHOICES:
            kind = {"choices": CHOICES[name]}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=f"default {default}", **kind)
    add_bos(parser, "each example")
    add_dtype(parser)
    parser.add_argument("--seed", action=Checked, kind=Seed, type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _recover(options) -> None:
    recipe = Recipe(**{name: getattr(options, name) for name in vars(Recipe())})
    check_model(options.model)
    check_new_folder(options.out, PRUNED)
    state = options.out.parent / f"{options.out.name}.state"
    if state.is_dir():
        raise StudyError(f"{state} is of another command; choose another folder")
    if options.rows:
        recipe.steps(options.rows)
    if config := plain_config(options.model):
        check_room(config, recipe.cutoff, [])
    from ..inputs import corpora, models
    from ..structure import checkpoint

    rows = corpora.load_instructions(options.instructions)
    rows, validation = corpora.split_instructions(rows, validation=options.validation, seed=options.seed)
    if options.rows is not None and not 0 < options.rows <= len(rows):
        raise StudyError(f"--rows {options.rows} of {len(rows)} training rows: allowed is 1 to {len(rows)}")
    recipe.steps(len(rows[: options.rows]))
    from ..recovery import loop, lora
    from ..recovery.examples import encode

    launched, bos = loop.accelerator(), BOS[options.bos]
    if state.exists():
        print(f"goes on from {state}", file=sys.stderr)
    tokenizer = models.load_tokenizer(options.model)
    stored = models.stored_dtype(options.model)
    dtype = LAUNCHED_DTYPES[launched.mixed_precision]
    model = models.load_model(options.model, dtype=dtype, device="cpu")  # a copy goes to the device that trains
    _warn_of_few_zeros(model)
    parts = (rows[: options.rows], validation)
    adapter = lora.train_adapter(
        model,
        *(encode(tokenizer, part, recipe.cutoff, recipe.loss_on, bos) for part in parts),
        recipe=recipe,
        seed=options.seed,
        log=_Steps(),
        state=state,
    )
    if launched.is_main_process:
        merged = models.in_dtype(lora.merge_adapter(model, adapter), options.dtype or stored)
        earlier = checkpoint.read_facts(options.model)["meta"] if checkpoint.is_pruned(options.model) else {}
        meta = {"recovery": adapter.meta | {"bos": bool(leading(tokenizer, bos))}}
        checkpoint.save_pruned(merged, options.out, tokenizer=tokenizer, meta=earlier | meta)
        state.unlink(missing_ok=True)
        sweep(state)
        print(f"{options.out}: recovered, validation loss {_best_validation(adapter):.4f} nats")
        if zeros := lora.sparsity(model):
            print(f"{zeros:.1%} of its sparse matrices was zero before, {lora.sparsity(merged):.1%} is now")


def _warn_of_few_zeros(model) -> None:
    """Say which zeros will go: a matrix of which less than a tenth is zero does not count as sparse."""
    from torch import nn

    from ..recovery.lora import is_sparse
    from ..structure.families import layers

    linears = [module.weight for module in layers(model).modules() if isinstance(module, nn.Linear)]
    shares = [(weight == 0).float().mean().item() for weight in linears if not is_sparse(weight)]
    most = max(shares, default=0.0)
    if most > 0.01:
        print(
            f"warning: matrices of which up to {most:.1%} is zero are not sparse and lose their zeros", file=sys.stderr
        )


class _Steps:
    """Prints training rows: one updating line on a terminal, a line a validation elsewhere."""

    def __init__(self):
        self.begin = time.perf_counter()

    def __call__(self, row: dict) -> None:
        elapsed = time.perf_counter() - self.begin
        left = elapsed / row["step"] * (row["steps"] - row["step"]) if row["step"] else float("nan")
        text = f"step {row['step']}/{row['steps']}" + (f", {left:.0f} s left" if row["step"] else "")
        text += "".join(f", {name} {row[name]:.4f}" for name in ("loss", "validation_loss") if name in row)
        if "validation_loss" in row:
            print(text, file=sys.stderr)
        elif sys.stderr.isatty():
            print(text, end="\r", file=sys.stderr)


def _best_validation(adapter) -> float:
    return next(row for row in adapter.meta["history"] if row["step"] == adapter.meta["best_step"])["validation_loss"]
