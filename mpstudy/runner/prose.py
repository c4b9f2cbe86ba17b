"""Changed prose of a notebook is brought into its executed copy without executing anything.

Code cells decide a result by their syntax, so their comments and formatting are brought along.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..store.files import write_atomically
from .pages import write_notebook_page
from .profiles import Run


def refresh(runs: Iterable[Run], home: Path) -> list[str]:
    """Bring the cells of the notebooks of current ``runs`` into their executed copies in the report folder ``home``
    and write the pages of those that changed anew; returns their names.
    """
    return [run.name for run in runs if _refresh(run.notebook, home / f"{run.name}.ipynb")]


def _refresh(source: Path, executed: Path) -> bool:
    """Whether ``executed`` and its page changed. The notebook is replaced last: until then it is the one that differs,
    so what was killed is done the next time.
    """
    if (text := splice(source, executed)) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / executed.name
        new.write_text(text, encoding="utf-8")
        write_notebook_page(new, executed.with_suffix(".html"))
    write_atomically(executed, text)
    return True


def splice(source: Path, executed: Path) -> str | None:
    """The text of ``executed`` with the cells of ``source`` and the outputs that it has; None where that is what it is.

    Both have the same code cells but for the one in which Papermill puts the parameters of the run.
    """
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    before = nbformat.writes(notebook)
    done = [cell for cell in notebook.cells if cell.cell_type == "code"]
    given = [cell for cell in done if "injected-parameters" in cell.metadata.get("tags", [])]
    outputs, cells = iter(cell for cell in done if cell not in given), []
    for cell in nbformat.read(source, as_version=4).cells:
        if cell.cell_type == "code":
            ran = next(outputs)
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            cells += given
    notebook.cells = cells
    after = nbformat.writes(notebook)
    return None if after == before else after + "\n"
