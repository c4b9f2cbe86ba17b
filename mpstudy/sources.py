"""Which model is meant, and the digest that stands for it in fingerprints. Imports nothing heavy."""

import hashlib
import os
from pathlib import Path

from . import manifest
from .errors import StudyError

BUNDLED = ("smollm2-135m-instruct", "smollm2-135m-instruct-ungrouped")


def is_bundled(name: str) -> bool:
    """Whether ``name`` needs neither a folder nor a hub."""
    return name in BUNDLED


def hub_commit(name: str) -> str | None:
    """The commit of a hub model that the local hub cache holds, or ``None``."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    reference = cache / f"models--{name.replace('/', '--')}" / "refs" / "main"
    return reference.read_text().strip() if reference.is_file() else None


def source_digest(name: str) -> str:
    """A short text that changes whenever the model behind ``name`` changes.

    Bundled: the manifest's checksum. Folder: sha256 over its JSON and safetensors files. Hub id: the cached commit.
    """
    if is_bundled(name):
        return f"{name}@{manifest.entries()['smollm2-gguf'].sha256}"
    folder = Path(name)
    if folder.is_dir():
        return f"folder@{_folder_digest(folder)}"
    return f"{name}@{hub_commit(name) or 'main'}"


def _folder_digest(folder: Path) -> str:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    if not files:
        raise StudyError(f"model folder {str(folder)!r} holds no .json or .safetensors file")
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as handle:
            total.update(path.name.encode() + hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
