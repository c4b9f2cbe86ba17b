"""How the study's notebooks are written: a cell is a sentence's worth of code."""

import ast
import json

import pytest

from mpstudy.store.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINES = 15  # of a cell; imports and parameters, which are lists, do not count


def lines_of(cell: dict) -> int:
    """Lines of a code cell from the first that is no import."""
    source = "".join(cell["source"])
    body = [node for node in ast.parse(source).body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    return len(source.splitlines()) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_has_at_most_15_lines(path):
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    cells = [cell for cell in code if "parameters" not in cell["metadata"].get("tags", [])]
    assert len(cells) > 5
    assert {"".join(cell["source"]): lines_of(cell) for cell in cells if lines_of(cell) > LINES} == {}


def test_lines_count_from_the_first_that_is_no_import():
    assert lines_of({"source": ["import a\n", "from b import c\n", "\n", "x = (\n", "    1\n", ")"]}) == 3
    assert lines_of({"source": ["import a"]}) == 0
