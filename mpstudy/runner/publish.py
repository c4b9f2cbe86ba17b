"""An executed notebook and what it wrote, freed of this machine's folders and moved into a report at once."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from ..store.files import write_atomically
from ..store.paths import ROOT, cache_dir
from .profiles import Run
from .status import again_file, result_file


def clean_notebook(source: Path, target: Path, home: Path, parameters: dict) -> None:
    """Copy an executed notebook without Papermill's bookkeeping and without any absolute path."""
    import nbformat

    notebook = nbformat.read(source, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):  # Papermill gives every cell a list of tags
            del cell.metadata["tags"]
    target.write_text(scrub(nbformat.writes(notebook), home, parameters) + "\n", encoding="utf-8")


def scrub(text: str, home: Path, parameters: dict) -> str:
    """``text`` with this machine's folders replaced by names that mean the same everywhere."""
    names = {
        str(home): f"reports/{home.name}",
        str(cache_dir()): "data/cache",
        sys.prefix: ".venv",
        str(ROOT): ".",
        str(Path.home()): "~",
    }
    names |= {
        value: Path(value).name for value in parameters.values() if isinstance(value, str) and os.path.isabs(value)
    }
    text = re.sub(r"/\S*/ipykernel_\d+/\d+\.py", "<cell>", text)
    for folder in sorted(names, key=len, reverse=True):
        if len(folder) > 1:
            text = re.sub(re.escape(folder) + r"(?![\w-])", lambda _, name=names[folder]: name, text)
    return text


def publish(run: Run, work: Path, home: Path, result: dict) -> None:
    """Move everything into place; the result comes last, so it never names a file that is not there."""
    file = result_file(home, run.name)
    file.unlink(missing_ok=True)
    moves = {work / f"{run.name}{suffix}": f"{run.name}{suffix}" for suffix in (".ipynb", ".html")}
    for kind in ("figures", "tables"):  # in a folder for each run, so that no run overwrites another's
        shutil.rmtree(home / kind / run.name, ignore_errors=True)
        moves |= {
            path: f"{kind}/{run.name}/{path.relative_to(work / kind).as_posix()}"
            for path in sorted((work / kind).rglob("*"))
            if path.is_file()
        }
    for source, name in moves.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, home / name)
    names = list(moves.values())
    text = json.dumps(result | {"files": names}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(file, scrub(text, home, run.parameters) + "\n")
    again_file(home, run.name).unlink(missing_ok=True)
    shutil.rmtree(work.parent)
