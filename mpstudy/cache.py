"""Computed results by content: the same model, tokens, settings and code are never worked out twice.

A key is the sha256 of everything that decides the result, the weights' bits included, so an entry can be trusted
wherever it comes from and a killed run finds what it had finished.
"""

import ctypes
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .codebase import library_digest
from .errors import StudyError
from .files import replacing, write_atomically
from .paths import cache_dir

NO_CONTENT = {"_name_or_path", "architectures", "dtype", "transformers_version"}  # of a config: how it was loaded


def folder() -> Path:
    """Where computed results lie; ``MPSTUDY_COMPUTED`` moves it."""
    return Path(os.environ.get("MPSTUDY_COMPUTED", cache_dir() / "computed"))


def weights_digest(model) -> str:
    """sha256 over names, shapes and bits of all parameters and buffers, and over the config (rope, norm epsilon)."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in NO_CONTENT}
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    return total.hexdigest()


def tokens_digest(batches) -> str:
    """sha256 over shapes and values of a tensor or a list of tensors."""
    total = hashlib.sha256()
    for batch in [batches] if isinstance(batches, torch.Tensor) else batches:
        total.update(str(tuple(batch.shape)).encode() + batch.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def tokenizer_digest(tokenizer) -> str:
    """sha256 over the files that the tokenizer is saved as."""
    total = hashlib.sha256()
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(map(Path, tokenizer.save_pretrained(scratch))):
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


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


def cached_file(kind: str, key: dict, module: str, cls, compute: Callable):
    """The same for a value with ``save(path)``, ``cls.load(path)`` and ``meta``, such as
    :class:`mpstudy.scores.Scores`.
    """
    path = path_of(kind, key, module, ".safetensors")
    if path.is_file():
        return cls.load(path)
    value, seconds = _timed(compute)
    value.meta["seconds"] = seconds
    with replacing(path) as partial:
        value.save(partial)
    return value


def _timed(compute: Callable):
    """The value and its seconds; freed memory then goes back to the system, which glibc alone does only in part."""
    begin = time.perf_counter()
    value = compute()
    seconds = time.perf_counter() - begin
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    return value, seconds


def path_of(kind: str, key: dict, module: str, suffix: str) -> Path:
    """Where the result of ``key`` lies, or what stands beside it with another ``suffix``."""
    content = json.dumps(key | {"code": library_digest(module), "torch": torch.__version__}, sort_keys=True)
    return folder() / kind / (hashlib.sha256(content.encode()).hexdigest() + suffix)
