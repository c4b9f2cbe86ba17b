"""What a result depends on, as one sha256: equal fingerprints mean that running again would change nothing.

In it: parameters, threads, the notebook's source, the modules of ``mpstudy`` it imports (and those that these
import), the committed data files, the checksums of the fetched inputs and of the model, the versions of the
packages that compute, and the fingerprints of the runs whose results it reads. Not in it: modules that the
notebook does not import, such as the runner, so that a nicer report never reruns an experiment.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..inputs import manifest, names
from ..store.codebase import imported_files
from ..store.paths import DATA, ROOT, cache_dir
from .profiles import Run, read_cells

PACKAGES = ("torch", "transformers", "peft", "lm_eval", "numpy")


def fingerprint(spec: Run, threads: int, needs: dict[str, str], root: Path = ROOT) -> str:
    """sha256 of everything ``spec`` depends on; ``needs`` maps the runs it reads to their fingerprints."""
    model = spec.parameters.get("model")
    parts = {
        "parameters": spec.parameters,
        "threads": threads,
        "needs": needs,
        "notebook": [["".join(cell["source"]), cell["cell_type"]] for cell in read_cells(spec.notebook)],
        "library": [[file.relative_to(root).as_posix(), sha256(file)] for file in library_files(spec.notebook, root)],
        "data": [[file.relative_to(DATA).as_posix(), sha256(file)] for file in _data_files()],
        "inputs": manifest.digest(),
        "model": names.source_digest(model) if model else None,
        "versions": package_versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that compute, read without importing them; None where one is missing."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def library_files(notebook: Path, root: Path = ROOT) -> list[Path]:
    """The files of ``<root>/mpstudy`` that the notebook imports, directly or through others, sorted."""
    found = set()
    for index, cell in enumerate(read_cells(notebook)):
        if cell["cell_type"] == "code":
            found |= imported_files(_plain(cell["source"]), f"{notebook.name}, cell {index}", root=root)
    return sorted(found)


def _plain(source: list[str] | str) -> str:
    """A cell's source with IPython's ``%`` and ``!`` lines emptied, so that it is Python."""
    lines = "".join(source).splitlines()
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def _data_files() -> list[Path]:
    """Committed data files (fact tables, task files, published numbers); the cache is not among them."""
    cache = cache_dir().resolve()
    return sorted(
        file
        for file in DATA.rglob("*")
        if file.is_file()
        and cache not in file.resolve().parents
        and (DATA / "cache") not in file.parents
        and file.suffix != ".md"
        and "__pycache__" not in file.parts
    )
