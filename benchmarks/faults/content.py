"""What a command has written, as digests by file name; timings apart."""

import hashlib
import json
from pathlib import Path

TIMED = (".html", ".ipynb")  # hold dates and seconds: what counts is that they are there
TEMPORARY = (".writing-", ".state")


def content(out: Path) -> dict[str, str]:
    """A digest for each file of a folder, or of the file ``out`` itself; nothing for what is not there."""
    if out.is_file():
        return {out.name: _digest(out)}
    names = [path for path in sorted(out.rglob("*")) if path.is_file() and "work" not in path.relative_to(out).parts]
    return {path.relative_to(out).as_posix(): _digest(path) for path in names}


def whole_results(out: Path) -> bool:
    """Whether every result of a reproduction that is there can be read and has the files that it names."""
    for file in out.glob("*/results/*.json"):
        try:
            names = json.loads(file.read_text(encoding="utf-8"))["files"]
        except (ValueError, KeyError):
            return False
        if not all((file.parents[1] / name).is_file() for name in names):
            return False
    return True


def leftovers(place: Path, out: Path) -> list[str]:
    """What lies in ``place`` beside the output although no command is at work; a report's lock may stay."""
    beside = {path for path in place.iterdir() if path != out}
    inside = {path for path in place.rglob("*") if any(mark in path.name for mark in TEMPORARY)}
    inside |= {path for path in out.glob("*/work/*") if path.name != ".lock"}
    return sorted(path.relative_to(place).as_posix() for path in beside | inside)


def _digest(file: Path) -> str:
    if file.suffix in TIMED:
        return "there"
    data = file.read_bytes()
    if file.suffix == ".safetensors":  # the order of its metadata differs from process to process
        size = int.from_bytes(data[:8], "little")
        data = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True).encode() + data[8 + size :]
    elif file.parent.name == "results":
        result = {name: value for name, value in json.loads(data).items() if name != "provenance"}
        data = json.dumps(result, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
