"""The command ``prune``: units or blocks removed, and what stays repaired."""

import sys
import time
from pathlib import Path

from ..errors import StudyError
from ..inputs.early import check_model
from ..inputs.folders import PRUNED
from ..parameters import Count, CountOrZero, NonNegative, Ratio
from ..runner.progress import duration
from ..store.writable import check_new_folder
from .depth import prune_blocks
from .inputs import (
    Checked,
    add_calibration,
    add_command,
    add_dtype,
    calibration_facts,
    check_calibration,
    read_calibration,
    tokenizer_or_none,
)

JOINT = "joint"
BATCH_TOKENS = 1280  # of calibration text that goes through a layer at once
UNITS = {"attention": "head groups", "mlp": "MLP channels", "hidden": "hidden dimensions"}

_PRUNE = """
Remove the lowest-scoring units and save the smaller model (safetensors + JSON, loaded by `mpstudy.load_pruned`).
--scope local takes the same ratio of the units from every layer, global ranks across layers, heads and channels apart.
--scope joint ranks heads and channels of all layers together until --ratio of their parameters is gone, for scores that
compare so: flap's. --multiple rounds the MLP channels that stay in a layer up, so that kernels like the width; a model
of equal layers can be given to `export`.
--repair fits the o and down projections that lose inputs to what the dense weights of their layer put out, layer after
layer on calibration text: least-squares and admm change their weights, bias adds the mean of what is gone to their
biases. --strength is lambda, in units of the mean diagonal of the Gram matrix of their inputs.
Of scores by `--layers blocks`, as many blocks go as are nearest to the ratio; the first 4 and the last 2 stay. What is
left is a standard checkpoint, AutoModelForCausalLM.from_pretrained(OUT).

examples:
  python -m mpstudy prune smollm2-135m-instruct --scores taylor.safetensors --ratio 0.2 --out pruned/
  python -m mpstudy prune smollm2-135m-instruct --scores taylor.safetensors --ratio 0.2 --repair admm --out repaired/
  python -m mpstudy prune smollm2-135m-instruct --scores taylor.safetensors --ratio 0.2 --multiple 64 --out pruned/
  python -m mpstudy prune smollm2-135m-instruct --scores flap.safetensors --ratio 0.2 --scope joint --out pruned/
  python -m mpstudy prune smollm2-135m-instruct --scores blocks.safetensors --ratio 0.2 --out shallow/
"""


def add_commands(commands) -> None:
    """Add this module's commands to an argparse sub-parser collection."""
    _add_prune(commands)


def _add_prune(commands) -> None:
    parser = add_command(commands, "prune", "remove the lowest-scoring units", _PRUNE, _prune)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE")
    parser.add_argument("--ratio", action=Checked, kind=Ratio, type=float, required=True)
    parser.add_argument("--scope", default="local", choices=("local", "global", JOINT))
    parser.add_argument(
        "--multiple",
        action=Checked,
        kind=Count,
        type=int,
        default=1,
        help="round MLP widths up to a multiple (default 1)",
    )
    parser.add_argument("--repair", default="none", help="least-squares, bias, admm or none (default)")
    parser.add_argument(
        "--strength",
        action=Checked,
        kind=NonNegative,
        type=float,
        help="lambda of the repair (default: 0.3 of least-squares, 0 of admm)",
    )
    add_calibration(parser, parser.add_mutually_exclusive_group(), "--calibration")
    parser.set_defaults(corpus=None, samples=64, length=128)
    for which, default in (("first", 4), ("last", 2)):
        about = f"the {which} blocks, which stay (default {default})"
        parser.add_argument(f"--keep-{which}", action=Checked, kind=CountOrZero, type=int, metavar="N", help=about)
    add_dtype(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _prune(options) -> None:
    check_model(options.model)
    check_new_folder(options.out, PRUNED)
    if not options.scores.is_file():
        raise StudyError(f"there is no file of scores {options.scores}: `score` writes one")
    _check_repair(options)
    from ..evaluation import cost
    from ..inputs import models
    from ..structure import checkpoint, depth, joint, plan, shares, surgery
    from ..structure.scores import Scores
    from ..structure.units import Units

    if options.multiple > 1 and options.scope == JOINT:
        raise StudyError("multiple needs local scope: joint scope leaves layers of any width")
    plan.check_multiple(options.multiple, options.scope)
    scores = Scores.load(options.scores)
    if depth.BLOCKS in scores.values:
        return prune_blocks(options, scores)
    if options.keep_first is not None or options.keep_last is not None:
        raise StudyError("--keep-first and --keep-last are about whole blocks; these scores are of units in layers")
    _check_ratio_of(scores.meta, options)
    batch = _repair_batch(options, scores)
    stored = options.dtype or models.stored_dtype(options.model)
    model = models.load_model(options.model, dtype=stored if batch is None else "float32")
    units = Units(tuple(surgery.sets_of(model, scores.values)))
    if len(units.sets) != len(scores.values):
        unknown = sorted(scores.values.keys() - units.counts.keys())
        raise StudyError(f"the scores do not fit the model: it has no {', '.join(unknown)}")
    if options.scope == JOINT:
        decision = joint.plan_joint(scores, units, shares.unit_sizes(model, units), options.ratio)
    else:
        decision = plan.make_plan(scores, units, options.ratio, options.scope, multiple=options.multiple)
    before = cost.parameter_count(model)
    meta = {"plan": decision.to_json(), "scores": scores.meta, "parameters_before": before}
    meta |= _remove(model, decision, options, batch)
    after = cost.parameter_count(model)
    tokenizer = tokenizer_or_none(options.model)
    checkpoint.save_pruned(models.in_dtype(model, stored), options.out, tokenizer=tokenizer, meta=meta)
    print(f"{options.out}: {after:,} of {before:,} parameters kept ({1 - after / before:.1%} removed)")
    for line in _removed(decision, units):
        print(line)


def _check_ratio_of(meta: dict, options) -> None:
    """Scores that were taken of each layer without what goes before are those of one ratio; StudyError for another."""
    ratio, of = meta.get("ratio"), meta.get("of")
    if options.scope == "local" and of and (ratio, of) != (options.ratio, "units"):
        wanted = f"--set ratio={options.ratio} --set of=units"
        raise StudyError(f"these scores are for a plan of ratio {ratio} of the {of}; for this one score with {wanted}")


def _check_repair(options) -> None:
    """Refuse of a repair's options what can be known before anything heavy is imported."""
    if options.repair != "none":
        options.corpus = options.corpus or "c4-demo"
        check_calibration(options)
    elif options.corpus or options.tokens or options.strength is not None:
        raise StudyError("--calibration, --tokens and --strength are of a repair: name one by --repair")


def _repair_batch(options, scores):
    """The calibration batch of the repair that the options name, which is checked; None for ``none``."""
    if options.repair == "none":
        return None
    from ..inputs import models
    from ..repair import check_repair

    kinds = {key.rpartition(".")[2] for key in scores.values}
    check_repair(models.load_config(options.model), kinds, options.repair, options.strength)
    return read_calibration(options)


def _remove(model, decision, options, batch) -> dict:
    """Remove the planned units and repair what stays; the facts about the repair for the checkpoint."""
    from ..repair import REPAIRS, repair

    if batch is None:
        repair(model, decision, [], method="none")
        return {}
    strength = REPAIRS[options.repair].strength if options.strength is None else options.strength
    rows = list(batch.split(max(1, BATCH_TOKENS // batch.shape[1])))
    log = _Repaired(sum(1 for removed in decision.removed.values() if len(removed)))
    repair(model, decision, rows, method=options.repair, strength=strength, log=log)
    return {"repair": {"method": options.repair, "lambda": strength} | calibration_facts(options, batch)}


def _removed(decision, units) -> list[str]:
    """A line for each kind of units: how many went. A ratio that is too small for a unit of few removes none."""
    lines, ratio, local = [], decision.meta["ratio"], decision.meta["scope"] == "local"
    for kind in dict.fromkeys(unit_set.kind for unit_set in units):
        keys = [unit_set.key for unit_set in units if unit_set.kind == kind]
        whole, gone = sum(units.counts[key] for key in keys), sum(len(decision.removed[key]) for key in keys)
        few = f"the ratio is less than one of the {units.counts[keys[0]]} of a layer"
        why = f": {few}" if not gone and ratio and local else ""
        lines.append(f"  {gone} of {whole} {UNITS[kind]} removed{why}")
    return lines


class _Repaired:
    """Prints each of ``total`` projections when it is repaired, and how long the others will take."""

    def __init__(self, total: int):
        self.total, self.done, self.begin = total, 0, time.perf_counter()

    def __call__(self, row: dict) -> None:
        self.done += 1
        left, each = self.total - self.done, (time.perf_counter() - self.begin) / self.done
        text = f"{row['linear']}: error {row['before']:.4f} before, {row['after']:.4f} after, {row['seconds']:.1f} s"
        print(text + (f"; {duration(each * left)} left for {left}" if left else ""), file=sys.stderr)
