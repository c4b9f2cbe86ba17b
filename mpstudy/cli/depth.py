"""The part of the command ``prune`` that takes whole blocks out of a model."""

from ..errors import StudyError
from ..store.writable import check_new_folder
from .inputs import tokenizer_or_none


def prune_blocks(options, scores) -> None:
    """Remove the blocks of lowest score by the options of ``prune``, and save what is left as what was given: a
    standard checkpoint, or a pruned one, whose units no config names.
    """
    from ..evaluation import cost
    from ..inputs import models
    from ..structure import checkpoint, depth

    if options.repair != "none":
        raise StudyError("--repair makes up for heads and channels; these scores are of whole blocks")
    if options.scope != "local" or options.multiple != 1:
        raise StudyError("--scope and --multiple are about units in layers; these scores are of whole blocks")
    kept = {"first": options.keep_first, "last": options.keep_last}
    plan = depth.plan_blocks(scores, options.ratio, **{name: n for name, n in kept.items() if n is not None})
    narrow = checkpoint.is_pruned(options.model)
    if not narrow:
        check_new_folder(options.out)
    model = models.load_model(options.model, dtype=options.dtype or models.stored_dtype(options.model))
    before = cost.parameter_count(model)
    depth.remove_blocks(model, plan)
    after, tokenizer = cost.parameter_count(model), tokenizer_or_none(options.model)
    if narrow:
        done = {"plan": plan.to_json(), "scores": scores.meta, "parameters_before": before}
        meta = checkpoint.read_facts(options.model)["meta"] | {"blocks": done}
        checkpoint.save_pruned(model, options.out, tokenizer=tokenizer, meta=meta)
    else:
        checkpoint.save_standard(model, options.out, tokenizer=tokenizer)
    print(f"{options.out}: {after:,} of {before:,} parameters kept ({1 - after / before:.1%} removed)")
    gone, blocks = plan.removed[depth.BLOCKS].tolist(), plan.counts[depth.BLOCKS]
    which = f": {', '.join(map(str, gone))}" if gone else ""
    print(f"  {len(gone)} of {blocks} blocks removed{which}")
