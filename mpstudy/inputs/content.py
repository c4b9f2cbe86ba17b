"""What stands behind the names of inputs, as digests: the data part of a result's identity. Imports nothing heavy."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..store.paths import DATA
from . import hub, manifest
from .names import last_name, source_digest


def contents(
    models: Iterable[str], named: Iterable[str], used: Iterable[str], sources: dict[str, hub.Source]
) -> dict[str, str]:
    """Digests by input of everything that a run reads.

    ``models``: names of models. ``named``: texts among the run's parameters, which may name corpora and tasks of the
    hub, also in the form ``corpus-NAME``. ``used``: these and all texts in the code, which name the fetched files of
    the manifest and the project's own tasks. ``sources``: the corpora and tasks of the hub. An input that is there but
    not named is not in the result.
    """
    used, named = set(used), {text.removeprefix("corpus-") for text in named}
    found: dict[str, str] = {}
    for name in models:  # two folders may have one name
        known = f"model {last_name(name)}"
        found[known] = " ".join(filter(None, [found.get(known), source_digest(name)]))
    found |= {f"input {name}": entry.sha256 for name, entry in manifest.entries().items() if name in used}
    found |= {f"hub {name}": hub.content_digest(name, sources[name]) for name in sorted(named & {*sources})}
    for name in sorted(named & {path.stem for path in (DATA / "tasks").glob("*.yaml")}):
        found[f"task {name}"] = _files_digest((DATA / "tasks").glob(f"{name}.*"))
        found["fact tables"] = _files_digest((DATA / "facts").glob("*.csv"))
    return found


def _files_digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()
