"""sha256 digests of what decides a result: models, tokens, tokenizers."""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # what needs only digests does without transformers
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_CONTENT = {"_name_or_path", "architectures", "dtype", "transformers_version"}  # of a config: how it was loaded


def weights_digest(model: "PreTrainedModel") -> str:
    """sha256 over names, shapes and bits of all parameters and buffers, and over the config (rope, norm epsilon)."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in NO_CONTENT}
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    return total.hexdigest()


def model_digest(model: "PreTrainedModel") -> dict[str, str | None]:
    """What decides what a model computes: its weights and config, the ``arithmetic`` that it emulates (a name, or None
    for its own), and the kind of device it is on.
    """
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"weights": weights_digest(model), "arithmetic": getattr(model, "arithmetic", None), "device": name}


def tokens_digest(batches: torch.Tensor | Iterable[torch.Tensor]) -> str:
    """sha256 over shapes and values of a tensor or a list of tensors."""
    total = hashlib.sha256()
    for batch in [batches] if isinstance(batches, torch.Tensor) else batches:
        total.update(str(tuple(batch.shape)).encode() + batch.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 over the files that the tokenizer is saved as."""
    total = hashlib.sha256()
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(map(Path, tokenizer.save_pretrained(scratch))):
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()
