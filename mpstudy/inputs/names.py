"""Which model is meant, and the digest that stands for it in fingerprints. Imports nothing heavy."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import StudyError
from ..registry import Registry
from ..store.paths import cache_dir
from . import manifest


@dataclass(frozen=True)
class Bundled:
    """A model that comes by package: its family ``kind``, and the ``inputs`` of the manifest that make its GGUF file.

    ``joined``: the sha256 of that file where it comes in several parts. ``ungroups``: the bundled model of which this
    is the variant with a KV head for each query head.
    """

    kind: str
    inputs: tuple[str, ...]
    joined: str = ""
    ungroups: str = ""

    @property
    def sha256(self) -> str:
        """The checksum of the GGUF file."""
        return self.joined or manifest.entries()[self.inputs[0]].sha256


BUNDLED = Registry("bundled model")
BUNDLED.add("smollm2-135m-instruct", Bundled("llama", ("smollm2-gguf",)))
BUNDLED.add("smollm2-135m-instruct-ungrouped", Bundled("llama", ("smollm2-gguf",), ungroups="smollm2-135m-instruct"))
BUNDLED.add(
    "gemma3-270m",
    Bundled(
        "gemma3_text",
        ("gemma3-270m-gguf-1", "gemma3-270m-gguf-2", "gemma3-270m-gguf-3", "gemma3-270m-gguf-4"),
        joined="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
)


def is_bundled(name: str) -> bool:
    """Whether ``name`` needs neither a folder nor a hub."""
    return name in BUNDLED


def is_optional(name: str) -> bool:
    """Whether a bundled model is fetched only for those who ask for it."""
    known = manifest.entries()
    return any(known[part].only_for for part in BUNDLED[name].inputs)


def bundled_folder(name: str) -> Path:
    """The folder of the cache that holds a bundled model, once it is built."""
    return cache_dir() / "models" / f"{name}-{BUNDLED[name].sha256[:12]}"


def check_name(name: str) -> None:
    """Raise :class:`StudyError` unless ``name`` is of a bundled model or a folder, or could be a hub id."""
    if is_bundled(name) or (name and Path(name).is_dir()):
        return
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise StudyError(
            f"no model {name!r}: give a bundled name ({', '.join(BUNDLED)}), an existing folder, "
            "or a hub id like 'owner/name'"
        )


def hub_snapshot(name: str) -> Path | None:
    """The folder, named by its commit, in which the local hub cache holds a hub model, or ``None``.

    It may hold some of the model's files only.
    """
    from huggingface_hub import try_to_load_from_cache  # here, for it brings an HTTP client along
    from huggingface_hub.errors import HFValidationError

    try:  # a model or a tokenizer that was loaded left one of these behind
        found = [try_to_load_from_cache(name, file) for file in ("config.json", "tokenizer_config.json")]
    except HFValidationError:  # no hub has a model of such a name
        return None
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def source_digest(name: str) -> str:
    """A short text that changes whenever the model behind ``name`` changes.

    Bundled: the manifest's checksum. Folder: sha256 over its JSON and safetensors files. Hub id: the cached commit.
    """
    if is_bundled(name):
        return f"{name}@{BUNDLED[name].sha256}"
    folder = Path(name)
    if folder.is_dir():
        return f"folder@{_folder_digest(folder)}"
    snapshot = hub_snapshot(name)
    return f"{name}@{snapshot.name if snapshot else 'main'}"


def last_name(name: str) -> str:
    """The last part of an absolute path, and any other name as it is: the same wherever a folder lies."""
    return Path(name).name if Path(name).is_absolute() else name


def _folder_digest(folder: Path) -> str:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    if not files:
        raise StudyError(f"model folder {str(folder)!r} holds no .json or .safetensors file")
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as handle:
            total.update(path.name.encode() + hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def model_type(name: str) -> str | None:
    """The family that the config of a model names, or ``None`` while the model is not here."""
    if is_bundled(name):
        return BUNDLED[name].kind
    folder = Path(name) if Path(name).is_dir() else hub_snapshot(name)
    config = folder and folder / "config.json"
    if not config or not config.is_file():
        return None
    with suppress(ValueError, AttributeError):  # a damaged config, which loading it says in its own words
        return json.loads(config.read_text(encoding="utf-8")).get("model_type")
    return None
