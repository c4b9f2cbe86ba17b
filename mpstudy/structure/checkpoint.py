"""Pruned checkpoints: safetensors + JSON, never a pickle, never code from the checkpoint.

A folder holds ``model.safetensors``, ``config.json`` (of the dense architecture), ``pruned.json`` (units per layer,
sha256 of every other file, what was done) and, if given, the tokenizer. It loads back bit for bit.
"""

import copy
import hashlib
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import StudyError
from ..store.files import new_folder
from ..store.writable import check_new_folder
from .families import family
from .surgery import all_sets, resize, unit_counts
from .units import KINDS

MARK = "pruned.json"
WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
FORMAT = 1
OF_LLAMA = {"model_type", "architectures", "attention_bias", "mlp_bias", "pretraining_tp"}  # not of a Mistral's config


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

    Raises :class:`StudyError` when the disk is too small, a weight is not finite or ``folder`` holds something else.
    """
    folder = Path(folder)
    check_new_folder(folder, MARK)
    state = _checked_state(model, folder)
    with new_folder(folder) as staged:
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
            "files": {name: _sha256(staged / name) for name in _files(staged) if name != WEIGHTS},
            "meta": meta or {},
        }
        (staged / MARK).write_text(json.dumps(facts, indent=1))
    return folder


def save_standard(
    model: PreTrainedModel, folder: str | Path, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> Path:
    """Write ``model`` as a checkpoint that transformers loads; ``folder`` appears only when complete.

    Raises :class:`StudyError` when the disk is too small, a weight is not finite or ``folder`` holds something.
    """
    folder = Path(folder)
    check_new_folder(folder)
    _checked_state(model, folder)
    with new_folder(folder) as staged:
        model.save_pretrained(staged)
        if tokenizer is not None:
            tokenizer.save_pretrained(staged)
    return folder


def export_standard(
    model: PreTrainedModel, folder: str | Path, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> Path:
    """Write ``model``, whose layers are all equally wide, as a checkpoint that ``AutoModelForCausalLM.from_pretrained``
    loads without this package.

    Raises :class:`StudyError` for layers of unequal widths, for a family whose config cannot name them, and when
    ``folder`` holds something.
    """
    check_new_folder(Path(folder))
    widths = {kind: {units.count for units in all_sets(model) if units.kind == kind} for kind in KINDS}
    for kind, found in widths.items():
        if len(found) > 1:
            raise StudyError(
                f"a standard checkpoint needs layers of equal widths; the {kind} units of these are {sorted(found)}: "
                "prune all layers by local scope"
            )
    (groups,), (channels,) = widths["attention"], widths["mlp"]
    twin = AutoModelForCausalLM.from_config(_standard_config(model.config, groups, channels), dtype=model.dtype)
    twin.load_state_dict(model.state_dict(), strict=True)
    twin.generation_config = model.generation_config
    return save_standard(twin, folder, tokenizer=tokenizer)


def _standard_config(dense: Any, groups: int, channels: int) -> Any:
    """The config of a model of the family ``dense`` with so many head groups and channels a layer. That of a Llama
    refuses a number of heads that does not divide the hidden size; then it is that of the Mistral which computes the
    same. :class:`StudyError` where no config can name the sizes.
    """
    config = copy.deepcopy(dense)
    changes = family(config).standard(config, groups, channels)
    heads = changes.get("num_attention_heads", 1)
    if config.model_type == "llama" and config.hidden_size % heads and not (config.attention_bias or config.mlp_bias):
        shared = {name: value for name, value in config.to_dict().items() if name not in OF_LLAMA}
        config = MistralConfig(**shared, sliding_window=None)
    config.update(changes)
    try:
        config.validate()
    except StrictDataclassError as error:
        reason = f"a config of {config.model_type} cannot name {heads} heads in a hidden size of {config.hidden_size}"
        raise StudyError(f"{reason}: prune another share of the heads, or only MLP channels") from error
    return config


def load_pruned(folder: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a pruned checkpoint on the CPU in ``dtype`` or else the one it was saved in, with strict keys.

    Raises :class:`StudyError` for a truncated, changed or foreign checkpoint.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    if not (folder / WEIGHTS).is_file():
        raise StudyError(f"{folder} is not a complete pruned checkpoint: {WEIGHTS} is missing")
    for name, expected in {WEIGHTS: facts["sha256"], **facts.get("files", {})}.items():
        if (folder / name).is_file() and _sha256(folder / name) != expected:
            raise StudyError(f"{folder / name} is truncated or changed: its sha256 is not the one in {MARK}")
    try:
        state = load_file(str(folder / WEIGHTS))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        dtype = dtype or next(iter(state.values())).dtype
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        resize(model, facts["units"])
        missing, unexpected = model.load_state_dict(state, strict=False)
        if (folder / GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a file that is not as it should be makes transformers stumble over
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


def _checked_state(model: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    """Weights by name, each shared storage once (the output embedding of a tied model is left out); StudyError where
    one is not finite or ``folder`` is on a disk that has no room for them.
    """
    tied = set(getattr(model, "all_tied_weights_keys", {})) if model.config.tie_word_embeddings else set()
    state = {name: value.contiguous().cpu() for name, value in model.state_dict().items() if name not in tied}
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            dtype = str(value.dtype).removeprefix("torch.")
            raise StudyError(f"the weights of {name} are not finite in {dtype}: nothing is saved to {folder}")
    disk = next(parent for parent in folder.absolute().parents if parent.exists())
    needed, free = sum(value.nbytes for value in state.values()), shutil.disk_usage(disk).free
    if free < needed * 1.05 + 2**20:
        raise StudyError(
            f"no space for a checkpoint in {folder.parent}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        )
    return state


def _files(folder: Path) -> list[str]:
    """The files of a folder and of those in it, in which tokenizers keep further chat templates."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
