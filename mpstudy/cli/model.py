"""The commands ``score`` and ``evaluate``: the study's steps for people who live in a shell."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from ..errors import StudyError, check_choice
from ..evaluation.tasks import TASKS
from ..inputs import hub
from ..inputs.early import check_model, plain_config
from ..inputs.tokens import check_room, leading
from ..parameters import Count, Seed, Tokens
from .inputs import (
    BLOCKS_HELP,
    BOS,
    Checked,
    add_bos,
    add_calibration,
    add_command,
    check_calibration,
    check_file_target,
    check_vocabulary,
    read_calibration,
    read_text,
    setting,
)
from .steps import Steps

_SCORE = """
Score the prunable units of a model and write them as safetensors: `layers.<i>.attention` holds one score a head
group, `layers.<i>.mlp` one a channel (`hidden` one a hidden dimension, `blocks` one a block), low is removed first;
every setting is in the metadata.

MODEL is a bundled name (smollm2-135m-instruct, smollm2-135m-instruct-ungrouped, gemma3-270m), a folder or a hub id.
--tokens FILE.npy gives the calibration batch itself, an int64 array (samples, length), used unchanged and without
a tokenizer; --corpus NAME draws --samples windows of --length tokens with --sample-seed.
--seed is the pruner's own (its noise, or its random scores).
policy-gradient and evolution are long searches for the mask at a ratio: they print how long they will take, keep what
they have beside --out, and go on when the same command is given again. Their scores are for `prune --scope global`
with the ratio that was searched for.

examples:
  python -m mpstudy score smollm2-135m-instruct --pruner taylor --layers 4-25 --out taylor.safetensors
  python -m mpstudy score ./my-llama --pruner moreau --set rho=0.2 --tokens batch.npy --layers 1-4 --out m.safetensors
  python -m mpstudy score ./my-llama --pruner taylor-vector --set reduction=max --layers hidden --out v.safetensors
  python -m mpstudy score ./my-llama --pruner evolution --set ratio=0.3 --layers 4-29 --out e.safetensors
  python -m mpstudy score ./my-llama --pruner block-ppl --layers blocks --samples 10 --length 128 --out b.safetensors
"""
_EVALUATE = """
Perplexity of a dense or pruned model on a text: non-overlapping windows, the last partial one dropped, losses in fp32.
Each predicts its last window-1 tokens, or all where it begins with BOS: by default where the tokenizer itself puts one
before a text, as Gemma's and LLaMA's do (--bos no for protocols without). --tasks adds zero-shot accuracies by lm-eval,
or gives them alone where no text is named.
--text FILE is any text; with --corpus it is a copy of that corpus of the hub (its parquet file or the raw text), whose
lines are joined as the published protocol joins them.

examples:
  python -m mpstudy evaluate pruned/ --text book.txt --window 128 --json
  python -m mpstudy evaluate pruned/ --corpus wikitext2 --text wiki.test.raw --window 2048
  python -m mpstudy evaluate smollm2-135m-instruct --corpus wiki --max-windows 40 --tasks facts agreement --limit 100
  python -m mpstudy evaluate pruned/ --tasks boolq piqa --limit 200
"""


def add_commands(commands) -> None:
    """Add this module's commands to an argparse sub-parser collection."""
    _add_score(commands)
    _add_evaluate(commands)


def _add_score(commands) -> None:
    parser = add_command(commands, "score", "score the units of a model", _SCORE, _score)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--pruner", required=True)
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the pruner",
    )
    source = parser.add_mutually_exclusive_group()
    add_calibration(parser, source)
    parser.add_argument("--layers", required=True, help=BLOCKS_HELP)
    parser.add_argument("--seed", action=Checked, kind=Seed, type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")


def _add_evaluate(commands) -> None:
    parser = add_command(commands, "evaluate", "perplexity and zero-shot accuracy", _EVALUATE, _evaluate)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--text", type=Path, metavar="FILE")
    parser.add_argument("--corpus")
    parser.add_argument("--window", action=Checked, kind=Tokens, type=int, default=128)
    about = "the first N windows"
    parser.add_argument("--max-windows", action=Checked, kind=Count, type=int, metavar="N", help=about)
    add_bos(parser, "each window")
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--limit", action=Checked, kind=Count, type=int, help="items per task")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _score(options) -> None:
    settings = dict(setting(text) for text in options.settings)
    check_model(options.model)
    check_calibration(options)
    check_file_target(options.out)
    from .. import blocks  # here and below: what takes longer to import is checked with last
    from ..runner import checks
    from ..store.files import replacing
    from ..structure.depth import BLOCKS

    whole = options.layers == BLOCKS
    _check_pruner(options.pruner, settings, whole)
    sampled = {} if options.tokens else {"calibration": options.corpus, "samples": options.samples}
    checks.validate({"model": options.model} | ({} if whole else {"layers": options.layers}) | sampled)
    from ..inputs import models

    batch = read_calibration(options)
    model = models.load_model(options.model)
    begin, state = time.perf_counter(), None if whole else _state(options)
    if whole:
        found = blocks.score(options.pruner, model, [batch])
    else:
        found = _unit_scores(options, model, batch, settings, state)
    if not options.tokens:
        found.meta["bos"] = batch.shape[1] > options.length
    with replacing(options.out) as partial:
        found.save(partial)
    if state:
        state.unlink(missing_ok=True)
    print(
        f"{options.out}: {len(found.values)} unit sets, scored by {options.pruner} "
        f"in {time.perf_counter() - begin:.1f} s"
    )
    for name, value in found.meta.items():
        print(f"  {name}: {value}")


def _check_pruner(name: str, settings: dict, whole: bool) -> None:
    """Refuse an unknown pruner of units, or of ``whole`` blocks, and settings that it does not take."""
    from .. import blocks, pruners

    if whole:
        blocks.check_settings(name, settings)
    elif name in blocks.BLOCK_PRUNERS:
        raise StudyError(f"pruner {name!r} scores whole blocks: give --layers blocks")
    else:
        pruners.check_settings(name, settings)
        if (known := pruners.PRUNERS[name].settings) is not None:
            replace(known, **settings)  # it refuses what does not go together


def _state(options) -> Path | None:
    """Where a long search keeps how far it is; None for a pruner that is none."""
    from .. import pruners

    return options.out.parent / f"{options.out.name}.state" if pruners.goes_on(options.pruner) else None


def _unit_scores(options, model, batch, settings: dict, state: Path | None):
    from .. import pruners
    from ..structure.units import prunable_units

    search = {"log": Steps(), "state": state} if state else {}
    units = prunable_units(model, options.layers)
    return pruners.PRUNERS[options.pruner].function(model, [batch], units, seed=options.seed, **search, **settings)


def _evaluate(options) -> None:
    text, reads = _check_evaluate(options), bool(options.text or options.corpus)
    from ..evaluation import cost, perplexity
    from ..inputs import models

    if options.tasks:
        from ..evaluation import zeroshot

        zeroshot.check_tasks(options.tasks)
    tokenizer = models.load_tokenizer(options.model)
    first = leading(tokenizer, BOS[options.bos]) if reads else []
    windows = _windows(options, text, tokenizer, first) if reads else None
    model = models.load_model(options.model)
    result = {"parameters": cost.parameter_count(model)}
    if windows is not None:
        result |= perplexity.perplexity(model, windows)
        result |= {"window": options.window, "bos": bool(first)}
    if options.tasks:
        limit = None if options.limit is None else min(options.limit, sys.maxsize)  # the most that lm-eval can count
        try:
            result["zero_shot"] = zeroshot.evaluate_tasks(model, tokenizer, options.tasks, limit=limit)
        except IndexError as error:  # of the embedding
            raise StudyError(f"a task has tokens outside the vocabulary of {options.model}") from error
    if options.json:
        print(json.dumps({name: None if value != value else value for name, value in result.items()}))  # NaN: null
        return
    if windows is not None:
        print(f"perplexity {result['perplexity']:.3f} ± {result['stderr']:.3f} (standard error)")
        bos = " and BOS" if result["bos"] else ""
        print(f"window {result['window']}{bos}, {result['tokens']} tokens predicted")
    print(f"{result['parameters']:,} parameters")
    for row in result.get("zero_shot", []):
        print(
            f"{row['task']}: {row['metric']} {row['value']:.3f} ± {row['stderr']:.3f} "
            f"(chance {row['chance']:.2f}, n = {row['n_items']})"
        )


def _check_evaluate(options) -> str | None:
    """Refuse what can be known before anything heavy is imported; the text where it is no copy of a corpus."""
    if not (options.text or options.corpus or options.tasks):
        raise StudyError(
            "evaluate needs a text or tasks: --text FILE, --corpus NAME, both for a copy of a hub corpus, or --tasks"
        )
    check_model(options.model)
    for task in options.tasks:
        check_choice("zero-shot task", task, TASKS)
    if not (options.text or options.corpus):
        if options.bos != "default":
            raise StudyError("--bos is about windows of a text: give one with --text or --corpus")
        return None
    if config := plain_config(options.model):
        check_room(config, options.window, [])
    if not options.corpus:
        return read_text(options.text)
    if options.text and not options.text.exists():
        raise StudyError(f"local copy {options.text} does not exist")
    from ..inputs.corpora import CORPORA

    check_choice("text corpus", options.corpus, [name for name, corpus in CORPORA.items() if corpus.kind == "text"])
    if options.text and options.corpus not in hub.SOURCES:
        raise StudyError(f"corpus {options.corpus!r} is bundled; local copies are of {', '.join(hub.SOURCES)}")
    return None


def _windows(options, text: str | None, tokenizer, first: list[int]):
    """The windows of the ``text`` or else of the corpus that the options of ``evaluate`` name, int64; each begins with
    the tokens ``first``.
    """
    from ..inputs import corpora, models

    check_room(models.load_config(options.model), options.window, first)
    size = {"window": options.window, "bos": bool(first)}
    if text is None:
        windows = corpora.corpus_windows(tokenizer, options.corpus, local=options.text, **size)
    else:
        windows = corpora.text_windows(tokenizer, text, **size)
    windows = windows[: options.max_windows]
    check_vocabulary(windows, options.model, options.text or options.corpus)
    return windows
