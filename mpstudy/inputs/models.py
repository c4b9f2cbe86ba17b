"""Models: the bundled ones, any local folder, any Hugging Face id.

A bundled model comes as a GGUF file of 4-bit weights inside packages. transformers de-quantizes it but marks the object
as quantized, so a plain model is rebuilt from its config and weights and cached once as safetensors.
"""

import json
import os
import sys
import textwrap
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ..errors import StudyError, check_choice
from ..store.files import staging
from ..structure import checkpoint
from ..structure.surgery import ungroup
from . import hub, manifest
from .folders import check_pickles
from .names import BUNDLED, Bundled, bundled_folder, check_name, hub_snapshot, is_bundled

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # by the names of safetensors
SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size")


def default_device() -> str:
    """``cuda`` when there is one, ``cpu`` otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(name: str, *, dtype: str = "float32", device: str | None = None):
    """Load a causal language model in evaluation mode.

    Parameters
    ----------
    name: a bundled name (:data:`.names.BUNDLED`), a local folder (a plain or a pruned checkpoint) or a hub id.
    dtype: ``float32``, ``bfloat16`` or ``float16``.
    device: a torch device; the default is :func:`default_device`.

    Raises
    ------
    StudyError: no such folder or hub id, an unknown dtype, a config that :func:`load_config` refuses, or weights that
    do not fit it. Weights that the config does not ask for are named on standard error.
    """
    check_choice("dtype", dtype, DTYPES)
    folder = _locate(name)
    load = checkpoint.load_pruned if checkpoint.is_pruned(folder) else _load_dense
    # not .to(dtype): that would round the rotary frequencies too, which stay fp32 in every dtype
    return load(folder, DTYPES[dtype]).to(device or default_device()).eval()


def load_tokenizer(name: str):
    """Load the tokenizer of ``name`` (see :func:`load_model`); a model without one raises :class:`StudyError`."""
    tokenizer = _from_pretrained(AutoTokenizer, _locate(name))
    tokenizer.clean_up_tokenization_spaces = False
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(name: str):
    """The configuration of ``name`` without its weights. Raises :class:`StudyError` for what this package cannot read:
    quantised weights, models of several parts, projected embeddings, sizes that are none.
    """
    config = _from_pretrained(AutoConfig, _locate(name))
    if quantised := getattr(config, "quantization_config", None):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else type(quantised).__name__
        raise StudyError(f"model {name!r} is quantised ({method}): give its weights as {', '.join(DTYPES)}")
    if (text := config.get_text_config()) is not config:
        raise StudyError(
            f"model {name!r} ({config.model_type}) holds more than text: give its language model ({text.model_type}) "
            "in a folder of its own"
        )
    for size in SIZES:
        value = getattr(config, size, None)
        if value is not None and (type(value) is not int or value < 1):
            raise StudyError(f"model {name!r} cannot be loaded: {size} of its config is {value!r}, not at least 1")
    if getattr(config, "word_embed_proj_dim", config.hidden_size) != config.hidden_size:
        raise StudyError(f"model {name!r} projects its embeddings to another size, which has no adapter")
    return config


def stored_dtype(name: str) -> str:
    """The dtype of most weights in the first file of ``name``, a key of :data:`DTYPES`; ``float32`` for any other.
    Raises :class:`StudyError` for a model whose weights are not there.
    """
    try:
        with safe_open(_weights(name)[0], framework="pt") as handle:
            found = Counter(handle.get_slice(key).get_dtype() for key in list(handle.keys()))
    except (OSError, SafetensorError) as error:
        raise StudyError(f"the weights of {name!r} are truncated or changed: {error}") from error
    return STORED.get(max(found, key=found.__getitem__, default=""), "float32")


def fetch(name: str) -> None:
    """Make sure that the config, the tokenizer and the weights of ``name`` can be loaded later, when no hub is within
    reach. The weights are fetched if need be, and not read. Raises :class:`StudyError` for what is nowhere.
    """
    load_config(name)
    load_tokenizer(name)
    _weights(name)


def in_dtype(model, dtype: str):
    """``model`` with its parameters in ``dtype``, in place. Its buffers, such as rotary frequencies, stay in fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype])
    model.config.dtype = DTYPES[dtype]
    return model


def _weights(name: str) -> list[Path]:
    """The files of the weights, fetched if need be and not read."""
    source, files = _locate(name), []
    index = _file_of(source, f"{checkpoint.WEIGHTS}.index.json")
    shards = json.loads(index.read_text())["weight_map"].values() if index else (checkpoint.WEIGHTS,)
    for shard in sorted(set(shards)):
        file = _file_of(source, shard)
        if file is None:
            raise StudyError(f"the weights of model {name!r} are not there: no {shard} in its folder or within reach")
        files.append(file)
    return files


def _file_of(source: str, file: str) -> Path | None:
    """A file beside a model's config, fetched if that lies in the hub's cache; ``None`` if there is none."""
    folder = Path(source) if Path(source).is_dir() else hub_snapshot(source)
    if (folder / file).is_file():
        return folder / file
    if folder == Path(source) or not hub.answers():
        return None
    try:
        return Path(hf_hub_download(source, file, revision=folder.name))
    except EntryNotFoundError:
        return None
    except OSError as error:
        raise StudyError(f"cannot fetch {file} of model {source!r}: {str(error).splitlines()[0]}") from error


def _locate(name: str) -> str:
    """The folder of a bundled or local model, or the hub id itself when it is no folder."""
    if is_bundled(name):
        return str(build_bundled(name))
    check_name(name)
    return name


def build_bundled(name: str) -> Path:
    """Build (once) and return the safetensors folder of a bundled model."""
    folder = bundled_folder(name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staging(folder) as scratch:
        staged = scratch / "model"
        with _quiet():
            model, tokenizer = _bundled(BUNDLED[name], scratch)
            model.save_pretrained(staged)
            tokenizer.save_pretrained(staged)
        with suppress(OSError):  # another process finished the same build first
            os.rename(staged, folder)
    return folder


def _bundled(bundled: Bundled, scratch: Path):
    if bundled.ungroups:
        source = build_bundled(bundled.ungroups)
        return ungroup(AutoModelForCausalLM.from_pretrained(source)), AutoTokenizer.from_pretrained(source)
    if not bundled.joined:
        return _read_gguf(manifest.path(*bundled.inputs))
    manifest.join(bundled.inputs, scratch / "joined.gguf", bundled.joined)
    return _read_gguf(scratch / "joined.gguf")


def _read_gguf(path: Path):
    source, kwargs = str(path.parent), {"gguf_file": path.name}
    loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **kwargs)
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    plain = type(loaded)(type(loaded.config)(**settings))
    plain.load_state_dict(loaded.state_dict(), strict=True)
    plain.generation_config = loaded.generation_config
    return plain, AutoTokenizer.from_pretrained(source, **kwargs)


def _load_dense(source: str, dtype: torch.dtype):
    """A model with every weight from its checkpoint: transformers would draw missing ones at random."""
    if Path(source).is_dir():
        check_pickles(Path(source))
    # a wrong size is let through here, since the report names the tensor and transformers' own error does not
    report = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    load_config(source)
    model, info = _from_pretrained(AutoModelForCausalLM, source, dtype=dtype, **report)
    resized = sorted(name for name, *_ in info["mismatched_keys"])
    for names, problem in ((sorted(info["missing_keys"]), "missing"), (resized, "of another size")):
        if names:
            raise StudyError(
                f"the weights of {source!r} do not fit its config: {len(names)} {problem}, first {names[0]}"
            )
    if unread := sorted(info["unexpected_keys"]):
        print(
            f"warning: {source} holds {len(unread)} weights that its config does not ask for, first {unread[0]}",
            file=sys.stderr,
        )
    _untie(model)
    return model


def _untie(model) -> None:
    """Say so in the config of a model whose output embedding its file has beside another input embedding, although the
    config ties the two: transformers then loads both.
    """
    head = model.get_output_embeddings()
    if model.config.tie_word_embeddings and head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings, model.all_tied_weights_keys = False, {}


def _from_pretrained(auto_class, source: str, **kwargs):
    """``from_pretrained`` that never waits for a hub that cannot answer, and fails in one line.

    A model of the hub cache is read as a folder: by its id, transformers asks the hub for files that it lacks.
    """
    folder = source if Path(source).is_dir() else hub_snapshot(source)
    if folder is None and not hub.answers():
        raise StudyError(
            f"model {source!r} is not in the local cache and {constants.ENDPOINT} is not within reach; give a folder"
        )
    if folder is not None:
        try:
            return _load(auto_class, source, folder, local_files_only=True, **kwargs)
        except StudyError:
            if folder == source or not hub.answers():
                raise
    return _load(auto_class, source, source, **kwargs)  # fetches what the cache does not hold


def _load(auto_class, name: str, source: str | Path, **kwargs):
    try:
        with _quiet():
            return auto_class.from_pretrained(source, trust_remote_code=False, **kwargs)
    except Exception as error:  # whatever a file that is not as it should be makes transformers stumble over
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise StudyError(f"cannot load the {auto_class.__name__[4:]} of {name!r}: {reason}") from error


@contextmanager
def _quiet():
    """Without transformers' load reports, and off a terminal without its bars: what matters is raised instead."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
