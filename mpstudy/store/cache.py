"""Computed results by content: the same model, tokens, settings and code are never worked out twice.

A key is the sha256 of everything that decides the result, the weights' bits included, so an entry can be trusted
wherever it comes from and a killed run finds what it had finished.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch

from .. import memory
from ..errors import StudyError
from .codebase import library_digest
from .files import replacing, write_atomically
from .paths import cache_dir


class Storable(Protocol):
    """A value that goes to a file and comes back, such as :class:`mpstudy.structure.scores.Scores`."""

    @property
    def meta(self) -> dict: ...

    def save(self, path: str | Path) -> None: ...

    @classmethod
    def load(cls, path: str | Path) -> Self: ...


T = TypeVar("T")
Stored = TypeVar("Stored", bound=Storable)


def folder() -> Path:
    """Where computed results lie; ``MPSTUDY_COMPUTED`` moves it."""
    return Path(os.environ.get("MPSTUDY_COMPUTED", cache_dir() / "computed"))


def cached_json(kind: str, key: dict, module: str, compute: Callable[[], dict]) -> dict:
    """The JSON-able result of ``compute``, kept under ``kind`` by ``key`` and the code that ``module`` depends on.

    The result carries ``seconds``, what it took when it was computed.
    """
    path = path_of(kind, key, module, ".json")
    if path.is_file():
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StudyError(f"the cached result {path} is damaged; delete it and run again") from error
    value, seconds = _timed(compute)
    value |= {"seconds": seconds}
    write_atomically(path, json.dumps(value))
    return value


def cached_file(kind: str, key: dict, module: str, cls: type[Stored], compute: Callable[[], Stored]) -> Stored:
    """The same for a value of the class ``cls``; the seconds stand in its ``meta``."""
    path = path_of(kind, key, module, ".safetensors")
    if path.is_file():
        return cls.load(path)
    value, seconds = _timed(compute)
    value.meta["seconds"] = seconds
    with replacing(path) as partial:
        value.save(partial)
    return value


def _timed(compute: Callable[[], T]) -> tuple[T, float]:
    """The value and its seconds; freed memory then goes back to the system."""
    begin = time.perf_counter()
    value = compute()
    seconds = time.perf_counter() - begin
    memory.trim()
    return value, seconds


def path_of(kind: str, key: dict, module: str, suffix: str) -> Path:
    """Where the result of ``key`` lies, or what stands beside it with another ``suffix``."""
    content = json.dumps(key | {"code": library_digest(module), "torch": torch.__version__}, sort_keys=True)
    return folder() / kind / (hashlib.sha256(content.encode()).hexdigest() + suffix)
