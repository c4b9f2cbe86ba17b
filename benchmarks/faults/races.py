"""Two processes that compute what lies under one key of the cache, at the same time."""

import json
import os
import sys
from functools import partial
from pathlib import Path

from . import children
from .commands import Bench
from .content import TEMPORARY
from .row import Row

POSSIBLE = ("unclear", "half", "differing", "left")
TIMINGS = ("seconds", "peak_bytes", "prune_seconds")


def campaign(bench: Bench, races: int = 10) -> Row:
    """Race for entries of both kinds (JSON and safetensors), and for the layers of a sparse model."""
    row = Row("two processes, one cache key", POSSIBLE)
    print(f"{row.kind}, {races} times", flush=True)
    known = values(bench, bench.folder / "cache")
    for number in range(races):
        _race(bench, row, known, bench.folder / f"race-{number}")
    return row


def values(bench: Bench, computed: Path) -> dict:
    """What a study finds whose cache is the folder ``computed``."""
    ended = children.run(partial(study, bench.inputs, computed), bench.logs)
    if not ended.is_good:
        raise RuntimeError(f"the study fails undisturbed: {ended.err}")
    return parsed(ended)


def parsed(ended: children.Ended) -> dict:
    """What :func:`study` printed."""
    return json.loads(ended.out)


def study(inputs: Path, computed: Path, ready: int | None = None) -> int:
    """Scores (a cached file), a sparse model and a perplexity (cached JSON) of the tiny model; their values are
    printed. An error of a user ends as a command does. It begins when the pipe ``ready`` is closed, if given.
    """
    from mpstudy.errors import StudyError
    from mpstudy.study import Study

    os.environ["MPSTUDY_COMPUTED"] = str(computed)
    if ready is not None:
        os.read(ready, 1)
    try:
        made = Study(
            model_name=str(inputs / "model"), layers="0-1", calibration="sotu-early", samples=2, length=16,
            corpora=["novel"], window=32, windows=4,
        )  # fmt: skip
        found = {"quality": made.perplexity(made.model), "sparse": made.sparse("sparsegpt", 0.5, sample=0)}
        scores = made.scores("taylor", sample=0)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found["scores"] = {key: value.tolist() for key, value in scores.values.items()} | {"meta": dict(scores.meta)}
    print(json.dumps(_timeless(found), sort_keys=True))
    return 0


def _race(bench: Bench, row: Row, known: dict, computed: Path) -> None:
    row.tried()
    waiting, starter = os.pipe()
    logs = [bench.folder / f"{computed.name}-{side}" for side in ("a", "b")]
    both = []
    for folder in logs:
        folder.mkdir()
        both.append(children.Child(partial(_racer, bench.inputs, computed, waiting, starter), folder))
    os.close(starter)
    os.close(waiting)
    for ended in [child.wait() for child in both]:
        if not ended.is_good:
            row.harm("unclear", f"{computed.name}: {ended.last_words}")
        elif parsed(ended) != known:
            row.harm("differing", f"{computed.name}: other values")
    if left := [path.name for path in computed.rglob("*") if any(mark in path.name for mark in TEMPORARY)]:
        row.harm("left", f"{computed.name}: {', '.join(sorted(left))}")
    if all(child.status == 0 for child in both) and values(bench, computed) != known:
        row.harm("half", f"{computed.name}: the entries do not load as what they are")


def _racer(inputs: Path, computed: Path, waiting: int, starter: int) -> int:
    os.close(starter)  # else the pipe stays open here
    return study(inputs, computed, waiting)


def _timeless(value):
    if isinstance(value, dict):
        return {name: _timeless(part) for name, part in value.items() if name not in TIMINGS}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
