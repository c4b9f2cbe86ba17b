"""A notebook executed by Papermill in a kernel of its own: this very Python, our environment, Unix sockets."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..store.paths import ROOT, cache_dir
from . import machine
from .profiles import Run


def execute_notebook(run: Run, work: Path, environment: dict[str, str]) -> None:
    """Execute into ``work/notebook.ipynb``; StudyError with the run, the cell and the reason if it fails."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output = work / "notebook.ipynb"
    # Short, because the path of a Unix socket has room for about 100 characters only.
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp" if Path("/tmp").is_dir() else None) as sockets:
        try:
            papermill.execute_notebook(
                _unformatted(run.notebook),
                _unformatted(output),
                parameters=run.parameters,
                kernel_name="python3",
                progress_bar=False,
                kernel_manager_class=_kernel_manager(Path(sockets), environment, work / "kernel.log"),
            )
        except PapermillExecutionError as error:
            kept = f"the notebook so far: {os.path.relpath(output)}"
            if error.ename == "StudyError":
                raise StudyError(error.evalue) from error
            reason = f"{error.ename}: {error.evalue}".splitlines()[0]
            raise StudyError(f"{run.name} failed in cell [{error.exec_count}]: {reason}\n{kept}") from error
        except DeadKernelError as error:
            raise StudyError(f"{run.name}: its Python process died, perhaps for want of memory") from error


def _unformatted(path: Path) -> str:
    """Papermill takes paths as format strings, so braces in them must be doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_manager(sockets: Path, environment: dict[str, str], log: Path) -> type:
    """A kernel manager class: this very Python, Unix sockets (TCP ports can be raced for), our environment.

    What the kernel process itself says, outside any cell, goes to ``log`` and not to the runner's terminal.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.transport, self.ip = "ipc", str(sockets / "k")
            self.connection_file = str(sockets / "kernel.json")

        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, language="python", display_name="Python 3")

        async def start_kernel(self, **kwargs: Any) -> None:  # type: ignore[override]  # the base's is a coroutine too
            with log.open("ab") as file:
                ours = {"env": environment, "cwd": str(ROOT), "stdout": file, "stderr": file}
                await super().start_kernel(**kwargs | ours)

    return Manager


def environment_of(work: Path, threads: int, hub: bool) -> dict[str, str]:
    """The environment of the kernel that works in ``work``; unless ``hub``, no hub can be reached from it."""
    environment = machine.kernel_environment(threads) | {"MPSTUDY_RUN": str(work / "context.json")}
    environment["MPSTUDY_CACHE"] = str(cache_dir().resolve())  # the kernel's working directory is another one
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures show in the notebook
    if not hub:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment
