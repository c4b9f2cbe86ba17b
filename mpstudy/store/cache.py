"""Computed results by content: the same model, tokens, settings and code are never worked out twice.

Every result is known by a :class:`Step`, which holds everything that decides it, the weights' bits included. So an
entry can be trusted wherever it comes from, and a killed run finds what it had finished.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch
from transformers import PreTrainedModel

from .. import memory
from ..errors import StudyError
from .digests import model_digest, tokens_digest
from .files import replacing, write_atomically
from .own import Code
from .paths import cache_dir
from .reach import library, texts
from .versions import versions_of


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


@dataclass(frozen=True)
class Step:
    """A computed result and what decides it.

    Parameters
    ----------
    kind: what is computed, such as ``"scores"``; entries of one kind lie in one folder.
    code: the functions and classes that compute it. All they reach in the library counts (see
        :mod:`mpstudy.store.reach`), their source where they are a user's own (:mod:`mpstudy.store.own`), and the
        versions of the packages that they import.
    models: their weights, configs, arithmetic and device.
    tokens: int64 tensors.
    settings: anything else, as JSON.
    names: of registry entries that are used beside those in the settings, such as the model's family.
    """

    kind: str
    code: tuple[Callable, ...]
    models: tuple[PreTrainedModel, ...] = ()
    tokens: Iterable[torch.Tensor] = ()
    settings: dict = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def path(self, suffix: str) -> Path:
        """Where the result lies, or what stands beside it with another ``suffix``."""
        return folder() / self.kind / (self.key + suffix)

    def on(self, tokens: Iterable[torch.Tensor]) -> "Step":
        """The same on other ``tokens``, of the same models as they are now, which are digested once."""
        other = replace(self, tokens=tokens)
        vars(other)["model_digests"] = self.model_digests
        return other

    @cached_property
    def model_digests(self) -> list[dict]:
        """What decides what the models compute."""
        return [model_digest(model) for model in self.models]

    @cached_property
    def key(self) -> str:
        """sha256 over everything that decides the result, as it is when first asked for."""
        code = Code(library(), self.code)
        reached = library().reached(code.roots, {*self.names, *texts(self.settings), *code.strings})
        parts = {
            "models": self.model_digests,
            "tokens": tokens_digest(self.tokens),
            "settings": self.settings,
            "threads": torch.get_num_threads(),
            "code": [reached.digests(), reached.wiring(code.roots), code.texts],
            "versions": versions_of(reached.packages),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_json(step: Step, compute: Callable[[], dict]) -> dict:
    """The JSON-able result of ``compute``, kept. It carries ``seconds``, what it took when it was computed."""
    path = step.path(".json")
    if path.is_file():
        return _read(path)
    value, seconds = _timed(compute)
    value |= {"seconds": seconds}
    text = json.dumps(value)
    write_atomically(path, f"{_sha256(text)}\n{text}")
    return value


def _read(path: Path) -> dict:
    """What lies in a JSON entry, below the digest of its text."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    except ValueError:  # no text at all
        digest = text = ""
    if digest != _sha256(text):
        raise StudyError(f"the cached result {path} is damaged; delete it and run again")
    return json.loads(text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def cached_file(step: Step, cls: type[Stored], compute: Callable[[], Stored]) -> Stored:
    """The same for a value of the class ``cls``; the seconds stand in its ``meta``."""
    path = step.path(".safetensors")
    if path.is_file():
        try:
            return cls.load(path)
        except StudyError as error:
            raise StudyError(f"the cached result {path} is damaged; delete it and run again") from error
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
