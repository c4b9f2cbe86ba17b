"""Named tensors with settings in one safetensors file: JSON in its metadata, beside a digest of it and the tensors."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import StudyError


def save(path: str | Path, kind: str, tensors: dict[str, torch.Tensor], meta: dict) -> None:
    """Write ``tensors`` and ``meta``, marked as ``kind`` (such as ``"scores"``)."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(meta)
    save_file(plain, str(path), metadata={f"mpstudy_{kind}": text, "sha256": _digest(plain, text)})


def load(path: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and ``meta`` of a file of this ``kind``; a truncated, changed or foreign file raises
    :class:`StudyError`.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            known = handle.metadata() or {}
            text = known[f"mpstudy_{kind}"]
            tensors = {name: handle.get_tensor(name) for name in sorted(handle.keys())}
            meta = json.loads(text)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StudyError(f"{path} is not a file of {kind} written by mpstudy ({error})") from error
    if known.get("sha256") != _digest(tensors, text):
        raise StudyError(f"{path} was changed after it was written, or by an earlier mpstudy: make it anew")
    return tensors, meta


def _digest(tensors: dict[str, torch.Tensor], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
