"""Pruned checkpoints: safetensors + JSON, never a pickle, never code from the checkpoint.

A folder holds ``model.safetensors``, ``config.json`` (of the dense architecture), ``pruned.json`` (units per layer,
sha256 of the weights, what was done) and, if given, the tokenizer. It loads back bit for bit.
"""

import copy
import hashlib
import json
import os
import shutil
import tempfile
import textwrap
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import StudyError
from .families import family
from .surgery import all_sets, resize, unit_counts
from .units import KINDS

MARK = "pruned.json"
WEIGHTS = "model.safetensors"
FORMAT = 1


def is_pruned(folder: str | Path) -> bool:
    """Whether ``folder`` is a pruned checkpoint of this package."""
    return (Path(folder) / MARK).is_file()


def save_pruned(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    meta: dict | None = None,
) -> Path:
    """Write ``model`` to ``folder``, which appears only when complete. An existing checkpoint there is replaced.

    Raises :class:`StudyError` when the disk is too small or ``folder`` holds something else.
    """
    folder = check_target(folder)
    state = _state_dict(model)
    _check_space(folder.parent, sum(value.nbytes for value in state.values()))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        model.config.save_pretrained(staged)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(staged)
        if tokenizer is not None:
            tokenizer.save_pretrained(staged)
        save_file(state, str(staged / WEIGHTS), metadata={"format": "pt"})
        facts = {
            "format": FORMAT,
            "units": unit_counts(model),
            "sha256": _sha256(staged / WEIGHTS),
            "meta": meta or {},
        }
        (staged / MARK).write_text(json.dumps(facts, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(staged, folder)
    return folder


def export_standard(
    model: PreTrainedModel, folder: str | Path, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> Path:
    """Write ``model``, whose layers are all equally wide, as a checkpoint that ``AutoModelForCausalLM.from_pretrained``
    loads without this package.

    Raises :class:`StudyError` for layers of unequal widths, for a family whose config cannot name them, and when
    ``folder`` holds something.
    """
    folder = check_empty(folder)
    widths = {kind: {units.count for units in all_sets(model) if units.kind == kind} for kind in KINDS}
    for kind, found in widths.items():
        if len(found) > 1:
            raise StudyError(
                f"a standard checkpoint needs layers of equal widths; the {kind} units of these are {sorted(found)}: "
                "prune all layers by local scope"
            )
    (groups,), (channels,) = widths["attention"], widths["mlp"]
    config = copy.deepcopy(model.config)
    config.update(family(config).standard(config, groups, channels))
    twin = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    twin.load_state_dict(model.state_dict(), strict=True)
    twin.generation_config = model.generation_config
    twin.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def check_empty(folder: str | Path) -> Path:
    """:class:`StudyError` if ``folder`` holds something."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder} exists; choose another folder")
    return folder


def check_target(folder: str | Path) -> Path:
    """Make the parent of ``folder``; :class:`StudyError` if that fails or ``folder`` holds something else."""
    folder = Path(folder)
    if folder.exists() and not is_pruned(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder} exists and is not a pruned checkpoint; choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"cannot make the folder {folder.parent}: {error.strerror}") from error
    return folder


def load_pruned(folder: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a pruned checkpoint on the CPU in ``dtype`` or else the one it was saved in, with strict keys.

    Raises :class:`StudyError` for a truncated, changed or foreign checkpoint.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    if not (folder / WEIGHTS).is_file():
        raise StudyError(f"{folder} is not a complete pruned checkpoint: {WEIGHTS} is missing")
    if _sha256(folder / WEIGHTS) != facts["sha256"]:
        raise StudyError(f"{folder / WEIGHTS} is truncated or changed: its sha256 is not the one in {MARK}")
    try:
        state = load_file(str(folder / WEIGHTS))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        dtype = dtype or next(iter(state.values())).dtype
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        resize(model, facts["units"])
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (OSError, KeyError, TypeError, RuntimeError, ValueError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise StudyError(f"{folder} is not a pruned checkpoint of mpstudy: {reason}") from error
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    if unexpected or set(missing) - tied:
        raise StudyError(f"{folder} does not fit its own config: {sorted(set(missing) - tied) + sorted(unexpected)}")
    model.tie_weights()
    return model.eval()


def read_facts(folder: str | Path) -> dict:
    """The contents of ``pruned.json``: format, units per layer, sha256, meta."""
    try:
        facts = json.loads((Path(folder) / MARK).read_text())
        if facts["format"] != FORMAT or not {"units", "sha256"} <= facts.keys():
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{folder} is not a pruned checkpoint of mpstudy (no valid {MARK}: {error})") from error
    return facts


def _state_dict(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Weights by name, each shared storage once (the output embedding of a tied model is left out)."""
    tied = set(getattr(model, "all_tied_weights_keys", {})) if model.config.tie_word_embeddings else set()
    return {name: value.contiguous().cpu() for name, value in model.state_dict().items() if name not in tied}


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + 2**20:
        raise StudyError(
            f"no space for a checkpoint in {folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
