"""The command ``slice``: a smaller hidden size by SliceGPT."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..inputs.early import check_model
from ..inputs.folders import PRUNED
from ..parameters import Ratio
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

BATCH = 8  # samples in one forward pass

_SLICE = """
Make the hidden size smaller by SliceGPT: the states between two norms are rotated to their principal directions on
calibration text, and the share --cut of the directions goes (what stays is rounded to a multiple of 8). Matrices in the
shortcuts turn one basis into the next; they and separate embeddings are counted as parameters and MACs. Loaded by
`mpstudy.load_pruned`. For models with root mean square norms before attention and MLP: Llama, Mistral, Qwen2, Qwen3,
Gemma, Granite, GLM, Phi-3. --samples x --length should be many times the hidden size.

example:
  python -m mpstudy slice smollm2-135m-instruct --cut 0.25 --corpus sotu-early --out sliced/
"""


def add_commands(commands) -> None:
    """Add this module's command to an argparse sub-parser collection."""
    parser = add_command(commands, "slice", "cut the hidden size after rotations", _SLICE, _slice)
    parser.add_argument("model", metavar="MODEL")
    about = "share of the hidden size that goes"
    parser.add_argument("--cut", action=Checked, kind=Ratio, type=float, required=True, help=about)
    add_calibration(parser, parser.add_mutually_exclusive_group())
    parser.set_defaults(samples=128, length=128)
    add_dtype(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _slice(options) -> None:
    check_model(options.model)
    check_calibration(options)
    check_new_folder(options.out, PRUNED)
    from ..inputs import models  # here and below: what takes longer to import
    from ..runner import checks
    from ..slicing.config import sliced_config
    from ..slicing.slicegpt import kept_size, slice_model

    checks.validate({"model": options.model, "calibration": options.corpus})
    config = models.load_config(options.model)
    size = kept_size(config.hidden_size, options.cut)
    sliced_config(config, size)
    from ..evaluation import cost
    from ..structure import checkpoint

    batch = read_calibration(options)
    stored = options.dtype or models.stored_dtype(options.model)
    model = models.load_model(options.model)
    sliced = slice_model(model, batch.split(BATCH), options.cut, log=_progress(config.num_hidden_layers))
    made = {name: getattr(options, name) for name in ("cut", "corpus", "samples", "length", "sample_seed")}
    made |= {"hidden_size": size, "bos": not options.tokens and batch.shape[1] > options.length}
    before = checkpoint.read_facts(options.model)["meta"] if checkpoint.is_pruned(options.model) else {}
    tokenizer = tokenizer_or_none(options.model)
    checkpoint.save_pruned(
        models.in_dtype(sliced, stored), options.out, tokenizer=tokenizer, meta=before | {"sliced": made}
    )
    print(f"{options.out}: {size} of {config.hidden_size} hidden dimensions kept")
    for unit, count in (("parameters", cost.parameter_count), ("MACs at 128 tokens", cost.macs)):
        dense, now = count(model), count(sliced)
        print(f"  {unit}: {now:,} of {dense:,} ({now / dense - 1:+.1%})")


def _progress(total: int) -> Callable[[dict], None]:
    """Prints each of ``total`` layers when it is sliced, and how long the others will take."""
    begin = time.perf_counter()

    def tell(row: dict) -> None:
        done = row["layer"] + 1
        text = f"layer {row['layer']}: {row['kept']:.2%} of the signal kept, {row['seconds']:.1f} s"
        if done < total:
            text += f"; {duration((time.perf_counter() - begin) / done * (total - done))} left for {total - done}"
        print(text, file=sys.stderr)

    return tell
