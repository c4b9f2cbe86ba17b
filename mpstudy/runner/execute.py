"""Execute one notebook and turn it into a result: the unit of work from its start to its last move."""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from .. import __version__
from ..errors import StudyError
from ..store.files import write_atomically
from ..store.paths import ROOT, cache_dir
from . import machine
from .fingerprint import package_versions, sha256
from .named import needs_hub
from .pages import write_notebook_page
from .profiles import Spec

SCHEMA = 1


def execute(
    spec: Spec,
    home: Path,
    work: Path,
    fingerprint: str,
    threads: int,
    expected: float,
    environment: dict[str, str],
) -> None:
    """Run ``spec`` and put notebook, page, figures, tables and at last ``results/<run>.json`` into ``home``.

    ``work`` is an empty folder on the same disk; ``expected`` is the estimate in seconds; ``environment`` is
    added to the kernel's. Raises StudyError if the notebook fails; what it did so far then stays in ``work``.
    """
    context = {
        "run": spec.name,
        "profile": home.name,
        "work": str(work),
        "reports": str(home),
        "parameters": spec.parameters,
    }
    (work / "context.json").write_text(json.dumps(context), encoding="utf-8")
    needs = {name: sha256(home / "results" / f"{name}.json") for name in spec.needs}

    before = {
        "mpstudy": __version__,
        "packages": package_versions(),
        **machine.describe(),
        "threads": threads,
        "git": machine.git_revision(),
    }
    started, begin = datetime.now(UTC), time.monotonic()
    _papermill(spec, work, _environment(spec, work, threads) | environment)
    seconds = time.monotonic() - begin
    if not (work / "partial.json").is_file():
        raise StudyError(f"{spec.name}: the notebook ended without `run.finish()`")

    clean_notebook(work / "notebook.ipynb", work / f"{spec.name}.ipynb", home, spec.parameters)
    write_notebook_page(work / f"{spec.name}.ipynb", work / f"{spec.name}.html")
    recorded = json.loads((work / "partial.json").read_text(encoding="utf-8"))
    measured = {
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 1),
        "estimate_minutes": round(expected / 60, 2) or None,
        "stages": recorded["stages"],
        "peak_memory_gb": recorded["peak_memory_gb"],
        **(recorded["torch"] or {}),
    }
    result = {
        "schema": SCHEMA,
        "run": spec.name,
        "notebook": spec.notebook.stem,
        "profile": home.name,
        "fingerprint": fingerprint,
        "needs": needs,
        "parameters": spec.parameters,
        "seeds": spec.parameters.get("seeds", []),
        "tables": recorded["tables"],
        "provenance": before | measured,
    }
    _publish(spec, work, home, result)


def _environment(spec: Spec, work: Path, threads: int) -> dict[str, str]:
    """The kernel's environment; no hub unless a parameter names something that only a hub has."""
    environment = machine.kernel_environment(threads) | {"MPSTUDY_RUN": str(work / "context.json")}
    environment["MPSTUDY_CACHE"] = str(cache_dir().resolve())  # the kernel's working directory is another one
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures show in the notebook
    if not needs_hub(spec.parameters):
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _papermill(spec: Spec, work: Path, environment: dict[str, str]) -> None:
    """Execute into ``work/notebook.ipynb``; StudyError with the run, the cell and the reason if it fails."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output = work / "notebook.ipynb"
    # Short, because the path of a Unix socket has room for about 100 characters only.
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp" if Path("/tmp").is_dir() else None) as sockets:
        try:
            papermill.execute_notebook(
                _unformatted(spec.notebook),
                _unformatted(output),
                parameters=spec.parameters,
                kernel_name="python3",
                progress_bar=False,
                kernel_manager_class=_kernel_manager(Path(sockets), environment, work / "kernel.log"),
            )
        except PapermillExecutionError as error:
            kept = f"the notebook so far: {os.path.relpath(output)}"
            if error.ename == "StudyError":
                raise StudyError(error.evalue) from error
            reason = f"{error.ename}: {error.evalue}".splitlines()[0]
            raise StudyError(f"{spec.name} failed in cell [{error.exec_count}]: {reason}\n{kept}") from error
        except DeadKernelError as error:
            raise StudyError(f"{spec.name}: its Python process died, perhaps for want of memory") from error


def _unformatted(path: Path) -> str:
    """Papermill takes paths as format strings, so braces in them must be doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_manager(sockets: Path, environment: dict[str, str], log: Path):
    """A kernel manager class: this very Python, Unix sockets (TCP ports can be raced for), our environment.

    What the kernel process itself says, outside any cell, goes to ``log`` and not to the runner's terminal.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class Manager(AsyncKernelManager):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.transport, self.ip = "ipc", str(sockets / "k")
            self.connection_file = str(sockets / "kernel.json")

        @property
        def kernel_spec(self):
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, language="python", display_name="Python 3")

        async def start_kernel(self, **kwargs):
            with log.open("ab") as file:
                ours = {"env": environment, "cwd": str(ROOT), "stdout": file, "stderr": file}
                await super().start_kernel(**kwargs | ours)

    return Manager


def clean_notebook(source: Path, target: Path, home: Path, parameters: dict) -> None:
    """Copy an executed notebook without Papermill's bookkeeping and without any absolute path."""
    import nbformat

    notebook = nbformat.read(source, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
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


def _publish(spec: Spec, work: Path, home: Path, result: dict) -> None:
    """Move everything into place; the result comes last, so it never names a file that is not there."""
    file = home / "results" / f"{spec.name}.json"
    file.unlink(missing_ok=True)
    moves = {work / f"{spec.name}{suffix}": f"{spec.name}{suffix}" for suffix in (".ipynb", ".html")}
    for kind in ("figures", "tables"):  # in a folder for each run, so that no run overwrites another's
        shutil.rmtree(home / kind / spec.name, ignore_errors=True)
        moves |= {
            path: f"{kind}/{spec.name}/{path.relative_to(work / kind).as_posix()}"
            for path in sorted((work / kind).rglob("*"))
            if path.is_file()
        }
    for source, name in moves.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, home / name)
    names = list(moves.values())
    text = json.dumps(result | {"files": names}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(file, scrub(text, home, spec.parameters) + "\n")
    shutil.rmtree(work.parent)
