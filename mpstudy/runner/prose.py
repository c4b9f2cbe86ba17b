"""Changed prose of a notebook is brought into its executed copy without executing anything.

Code cells decide a result by their syntax, so their comments and formatting are brought along.
"""

from collections.abc import Iterable
from pathlib import Path

from ..store.files import write_atomically
from .pages import write_notebook_page
from .profiles import Run


def refresh(runs: Iterable[Run], home: Path) -> list[str]:
    """Bring the cells of the notebooks of current ``runs`` into their executed copies in the report folder ``home``
    and write the pages of those that changed anew; returns their names.
    """
    changed = [run.name for run in runs if splice(run.notebook, home / f"{run.name}.ipynb")]
    for name in changed:
        write_notebook_page(home / f"{name}.ipynb", home / f"{name}.html")
    return changed


def splice(source: Path, executed: Path) -> bool:
    """Give ``executed`` the cells of ``source`` with the outputs that it has; whether that changed anything.

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
    if (after := nbformat.writes(notebook)) == before:
        return False
    write_atomically(executed, after + "\n")
    return True
