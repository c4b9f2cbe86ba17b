"""Named tensors with settings in one safetensors file; the settings are JSON in its metadata."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import StudyError


def save(path: str | Path, kind: str, tensors: dict[str, torch.Tensor], meta: dict) -> None:
    """Write ``tensors`` and ``meta``, marked as ``kind`` (such as ``"scores"``)."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, str(path), metadata={f"mpstudy_{kind}": json.dumps(meta)})


def load(path: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and ``meta`` of a file of this ``kind``; a truncated or foreign file raises :class:`StudyError`."""
    try:
        with safe_open(str(path), framework="pt") as handle:
            meta = json.loads((handle.metadata() or {})[f"mpstudy_{kind}"])
            return {name: handle.get_tensor(name) for name in sorted(handle.keys())}, meta
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise StudyError(f"{path} is not a file of {kind} written by mpstudy ({error})") from error
