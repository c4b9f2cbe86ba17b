"""One random bit of a file is turned; then the command that reads it."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import children, races
from .commands import COMMANDS, Bench, Command, differences
from .content import content
from .row import Row

POSSIBLE = ("unclear", "half", "differing")
WEIGHTS, REST = "flipped bit: weights, scores, states, cache", "flipped bit: the other files of a pruned folder"
SHARES = {"scores": 15, "recovery": 15, "layers": 15, "cache": 15, "weights": 15, "rest": 25}  # of a hundred


def campaign(bench: Bench, rng: random.Random, flips: int = 100) -> list[Row]:
    """Flip bits in every kind of file that a command of this package reads back; two rows."""
    rows = {name: Row(kind, POSSIBLE) for name, kind in (("weights", WEIGHTS), ("rest", REST))}
    for target, share in SHARES.items():
        row, count = rows["rest" if target == "rest" else "weights"], round(flips * share / 100)
        print(f"{row.kind}: {target}, {count} times", flush=True)
        for number in range(count):
            TARGETS[target](bench, rng, row, number)
    return list(rows.values())


def flip(rng: random.Random, file: Path) -> str:
    """Turn one bit of ``file``; says which."""
    data, bit = bytearray(file.read_bytes()), rng.randrange(8 * file.stat().st_size)
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    return f"{file.name}, bit {bit % 8} of byte {bit // 8}"


def _scores(bench: Bench, rng: random.Random, row: Row, number: int) -> None:
    inputs = _copy(bench, "model", "scores.safetensors")
    _read(bench, row, COMMANDS["prune"], flip(rng, inputs / "scores.safetensors"), inputs)


def _weights(bench: Bench, rng: random.Random, row: Row, number: int) -> None:
    inputs = _copy(bench, "pruned")
    _read(bench, row, COMMANDS["export"], flip(rng, inputs / "pruned" / "model.safetensors"), inputs)


def _rest(bench: Bench, rng: random.Random, row: Row, number: int) -> None:
    """Of every other file as often; what is read is once a model and its tokenizer, once a perplexity."""
    inputs = _copy(bench, "pruned", "book.txt")
    files = sorted(path for path in (inputs / "pruned").iterdir() if path.suffix == ".json")
    command = COMMANDS[("export", "evaluate")[number // len(files) % 2]]
    _read(bench, row, command, flip(rng, files[number % len(files)]), inputs)


def _state(name: str, bench: Bench, rng: random.Random, row: Row, number: int) -> None:
    """Of what a killed ``recover`` or ``sparsify`` goes on from."""
    command, kept = COMMANDS[name], _kept(bench, COMMANDS[name])
    bench.undisturbed(name)  # made in the same place
    with bench.place(command) as place:
        beside = place / kept.name
        shutil.copytree(kept, beside) if kept.is_dir() else shutil.copy(kept, beside)
        files = [beside] if beside.is_file() else sorted(beside.iterdir())
        _judge(bench, row, command, flip(rng, rng.choice(files)), place, bench.run(command, place))


def _cache(bench: Bench, rng: random.Random, row: Row, number: int) -> None:
    """Of the entries of a study."""
    whole, computed = bench.folder / "computed", bench.folder / "flipped"
    known = races.values(bench, whole)
    shutil.rmtree(computed, ignore_errors=True)
    shutil.copytree(whole, computed)
    files = sorted(path for path in computed.rglob("*") if path.is_file())
    what = flip(rng, files[number % len(files)])
    row.tried()
    ended = children.run(partial(races.study, bench.inputs, computed), bench.logs)
    if ended.is_good and races.parsed(ended) != known:
        row.harm("differing", f"study, {what}")
    elif not ended.is_good and not ended.is_refusal:
        row.harm("unclear", f"study, {what}: {ended.last_words}")


TARGETS: dict[str, Callable] = {
    "scores": _scores,
    "weights": _weights,
    "rest": _rest,
    "recovery": partial(_state, "recover"),
    "layers": partial(_state, "sparsify"),
    "cache": _cache,
}


def _copy(bench: Bench, *names: str) -> Path:
    """A folder of inputs that may be spoilt."""
    inputs = bench.folder / "spoilt"
    shutil.rmtree(inputs, ignore_errors=True)
    inputs.mkdir()
    for name in names:
        source = bench.inputs / name
        shutil.copytree(source, inputs / name) if source.is_dir() else shutil.copy(source, inputs / name)
    return inputs


def _read(bench: Bench, row: Row, command: Command, what: str, inputs: Path) -> None:
    bench.undisturbed(command.name)  # made in the same place
    with bench.place(command) as place:
        _judge(bench, row, command, what, place, bench.run(command, place, inputs))


def _judge(bench: Bench, row: Row, command: Command, what: str, place: Path, ended: children.Ended) -> None:
    """A refusal in one line is right, and so is the undisturbed output."""
    row.tried()
    known, found = bench.undisturbed(command.name).content, bench.found(command, place, ended)
    if ended.is_good and found != known:
        row.harm("differing", f"{command.name}, {what}: {differences(known, found)}")
    elif not ended.is_good and not ended.is_refusal:
        row.harm("unclear", f"{command.name}, {what}: {ended.last_words}")
    if not ended.is_good and command.out and content(place / command.out):
        row.harm("half", f"{command.name}, {what}")


def _kept(bench: Bench, command: Command) -> Path:
    """The state of a run that was killed as soon as it had kept one, made when first asked for."""
    kept = bench.folder / f"kept-{command.name}" / f"{command.out}.state"
    while not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with bench.place(command) as place:
            child, state = children.Child(bench.work(command, place / command.out), bench.logs), place / kept.name
            while not child.has_ended() and not (state.is_file() or state.is_dir() and any(state.glob("layer-*"))):
                pass
            child.kill()
            if state.exists():
                shutil.move(state, kept)
    return kept
