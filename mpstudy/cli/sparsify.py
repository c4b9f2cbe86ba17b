"""The commands ``sparsify`` and ``export``: single weights set to zero, and checkpoints for others."""

import math
import shutil
import sys
import time
from pathlib import Path

from ..errors import StudyError
from ..inputs.early import check_model
from ..parameters import Part
from ..runner.progress import duration
from ..store.writable import check_new_folder
from .inputs import (
    Checked,
    add_calibration,
    add_command,
    add_dtype,
    check_calibration,
    read_calibration,
    tokenizer_or_none,
)

_SPARSIFY = """
Set single weights of every linear layer in --layers to zero, layer after layer on calibration text, and save a
standard checkpoint. --sparsity is a share (0.6) or n:m (2:4, n weights stay of every m). --method is magnitude, wanda,
sparsegpt, admm, admm-gradual or joint-removal, or taylor or moreau for masks by those scores; --update makes up for
what is gone by ADMM or by exact least squares. --rebuild then swaps weights between the two sides of the masks, block
after block (LLM-Barber): paired inside a block, a matrix, a row or a column, of the pairs with a gain the share
--swaps, rounded down; by default that of the paper (0.1, 0.1, 0.01, 0.001). All that stay then have their dense values,
so that what sparsegpt, admm or joint-removal made of them is lost; it says where a block's error did not fall.
Finished layers are kept beside --out: a run that was stopped goes on.

examples:
  python -m mpstudy sparsify smollm2-135m-instruct --method sparsegpt --sparsity 0.6 --layers 0-29 --out sparse/
  python -m mpstudy sparsify ./my-llama --method moreau --update admm --sparsity 2:4 --layers 4-25 --out sparse/
  python -m mpstudy sparsify ./my-llama --method magnitude --sparsity 0.5 --layers 0-31 --rebuild block --out sparse/
"""
_EXPORT = """
Write a pruned model whose layers are all equally wide as a standard checkpoint, which transformers loads without
this package: AutoModelForCausalLM.from_pretrained(OUT).

example:
  python -m mpstudy export pruned/ --out standard/
"""


def add_commands(commands) -> None:
    """Add this module's commands to an argparse sub-parser collection."""
    _add_sparsify(commands)
    _add_export(commands)


def _add_sparsify(commands) -> None:
    parser = add_command(commands, "sparsify", "set single weights to zero", _SPARSIFY, _sparsify)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--method", required=True)
    parser.add_argument("--update", default="none")
    parser.add_argument("--sparsity", required=True)
    parser.add_argument("--rebuild", metavar="SCOPE", help="block, matrix, row or column")
    about = "of the pairs with a gain, in [0, 1]"
    parser.add_argument("--swaps", action=Checked, kind=Part, type=float, metavar="SHARE", help=about)
    parser.add_argument("--layers", required=True, help="inclusive range such as 4-25")
    add_calibration(parser, parser.add_mutually_exclusive_group())
    add_dtype(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _add_export(commands) -> None:
    parser = add_command(commands, "export", "a standard checkpoint of a pruned model", _EXPORT, _export)
    parser.add_argument("model", metavar="FOLDER")
    add_dtype(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _sparsify(options) -> None:
    check_model(options.model)
    check_calibration(options)
    state = options.out.parent / f"{options.out.name}.state"
    if state.is_file():
        raise StudyError(f"{state} is of another command; choose another folder")
    if options.out.exists():  # an earlier run was killed after all its work
        shutil.rmtree(state, ignore_errors=True)
    check_new_folder(options.out)
    from ..sparse.importance import ELEMENTWISE, element_scores  # here and below: what takes longer to import
    from ..sparse.masks import Target
    from ..sparse.sequential import check_method, prune_layers

    target = Target.parse(options.sparsity)
    _check_rebuild(options, target)
    by_scores = options.method in ELEMENTWISE
    method = "masked" if by_scores else options.method
    check_method(method, options.update)
    from ..inputs import models
    from ..runner import checks
    from ..structure.families import linear_layers
    from ..structure.units import parse_layers, prunable_units

    checks.validate({"model": options.model, "layers": options.layers, "calibration": options.corpus})
    batch = read_calibration(options)
    stored = options.dtype or models.stored_dtype(options.model)
    model = models.load_model(options.model)
    dense = _dense_weights(model, options.layers) if options.rebuild else {}
    importance = None
    if by_scores:
        units = prunable_units(model, options.layers)
        importance = element_scores(options.method, model, [batch], units).__getitem__
    total = len(linear_layers(model)) * len(parse_layers(options.layers, model.config.num_hidden_layers))
    rows = prune_layers(
        model, [batch], options.layers, method, target,
        importance=importance, update=options.update, log=_Progress(total), state=state,
    )  # fmt: skip
    if options.rebuild:
        _rebuild(model, dense, batch, target, options, state / f"{options.rebuild}-{options.swaps}")
    bos = not options.tokens and batch.shape[1] > options.length
    _save_sparse(models.in_dtype(model, stored), options, bos)
    shutil.rmtree(state)
    zeros = sum(row["zeros"] * row["weights"] for row in rows) / sum(row["weights"] for row in rows)
    print(
        f"{options.out}: {zeros:.1%} of the weights of {len(rows)} linear layers are zero"
        + ("; samples began with BOS" if bos else "")
    )


def _check_rebuild(options, target) -> None:
    """Refuse of --rebuild and --swaps what the config of the model tells."""
    if options.rebuild is None:
        if options.swaps is not None:
            raise StudyError("--swaps is a share of the pairs of --rebuild, which is missing")
        return
    if options.update != "none":
        raise StudyError(f"--rebuild gives all weights that stay their dense values: --update {options.update} is lost")
    from ..inputs import models
    from ..sparse.barber import SHARES, check_rebuild

    check_rebuild(models.load_config(options.model), options.rebuild, target, options.swaps)
    options.swaps = SHARES[options.rebuild] if options.swaps is None else options.swaps


def _dense_weights(model, layers: str) -> dict:
    """Copies, on the CPU, of the weights that are pruned, by the names of their linear layers."""
    from ..sparse.finished import linears_of
    from ..structure.units import parse_layers

    chosen = parse_layers(layers, model.config.num_hidden_layers)
    linears = {name: linear for layer in chosen for name, linear in linears_of(model, layer).items()}
    return {name: linear.weight.detach().cpu().clone() for name, linear in linears.items()}


def _rebuild(model, dense: dict, batch, target, options, state: Path) -> None:
    from ..sparse.barber import rebuild

    def show(row: dict) -> None:
        fell = "" if row["after"] < row["before"] else ", did not fall"
        text = f"error {row['before']:.4f}, then {row['after']:.4f}{fell}; {row['seconds']:.1f} s"
        print(f"layer {row['layer']}, {row['block']}: {row['swaps']:,} swaps, {text}", file=sys.stderr)

    rows = rebuild(
        model, dense, [batch], options.layers, options.rebuild, target,
        share=options.swaps, log=show, state=state,
    )  # fmt: skip
    risen, swaps = sum(row["after"] >= row["before"] for row in rows), sum(row["swaps"] for row in rows)
    fell = f"did not fall in {risen} of them" if risen else "fell in each"
    print(
        f"rebuilt by {options.rebuild}: {swaps:,} swaps in {len(rows)} blocks; the error on the calibration text {fell}"
    )
    if not swaps:
        pairs = (
            f"of {math.ceil(1 / options.swaps)} pairs with a gain one would be" if options.swaps else "none should be"
        )
        print(f"  nothing was swapped: {pairs}; give a larger --swaps")


def _save_sparse(model, options, bos: bool) -> None:
    """As what was given: a pruned model stays one of this package, since no config of transformers names its units."""
    from ..structure import checkpoint

    tokenizer = tokenizer_or_none(options.model)
    if checkpoint.is_pruned(options.model):
        settings = (
            "method",
            "update",
            "rebuild",
            "swaps",
            "sparsity",
            "layers",
            "corpus",
            "samples",
            "length",
            "sample_seed",
        )
        made = {name: getattr(options, name) for name in settings} | {"bos": bos}
        meta = checkpoint.read_facts(options.model)["meta"] | {"sparse": made}
        checkpoint.save_pruned(model, options.out, tokenizer=tokenizer, meta=meta)
    else:
        checkpoint.save_standard(model, options.out, tokenizer=tokenizer)


def _export(options) -> None:
    check_model(options.model)
    check_new_folder(options.out)
    from ..inputs import models
    from ..structure import checkpoint

    model = models.load_model(options.model, dtype=options.dtype or models.stored_dtype(options.model))
    checkpoint.export_standard(model, options.out, tokenizer=tokenizer_or_none(options.model))
    print(f"{options.out}: AutoModelForCausalLM.from_pretrained loads it")


class _Progress:
    """Prints each of ``total`` linear layers when it is pruned, and how long the others will take. One that comes
    faster than it was pruned was kept by an earlier run.
    """

    def __init__(self, total: int):
        self.left, self.pruned = total, 0
        self.begin = self.last = time.perf_counter()

    def __call__(self, row: dict) -> None:
        now = time.perf_counter()
        if now - self.last < row["seconds"]:
            self.begin = now
        else:
            self.pruned += 1
        self.left, self.last = self.left - 1, now
        text = f"{row['linear']}: {row['zeros']:.1%} zeros, error {row['error']:.4f}, {row['seconds']:.1f} s"
        if self.pruned and self.left:
            text += f"; {duration((now - self.begin) / self.pruned * self.left)} left for {self.left}"
        print(text, file=sys.stderr)
