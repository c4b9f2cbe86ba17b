"""How the study's notebooks are written: a cell is a sentence's worth of code."""

import ast
import json

import IPython.display
import matplotlib.pyplot as plt
import pytest
from helpers.tiny import tiny_folder

from mpstudy.runner.claims import load_claims
from mpstudy.runner.profiles import is_parameters, notebook_parameters
from mpstudy.store.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INSTABILITY, PRUNING = "10_perturbation_instability", "20_moreau_pruning"
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


SMALL = {"layers": "0-1", "samples": 2, "length": 24, "seeds": [0, 1, 2], "share": 0.4, "shares": [0.4]}
TEXTS = {"corpora": ["wiki"], "window": 24, "windows": 3}
CLAIMS = {run: [claim for claim in load_claims().claims if claim.run == run] for run in (INSTABILITY, PRUNING)}


def computed(notebook: str, parameters: dict, home) -> dict:
    """The tables that a notebook records where its cells are executed here with these parameters."""
    context = {"run": notebook, "profile": "test", "work": str(home), "reports": str(home), "parameters": parameters}
    (home / "context.json").write_text(json.dumps(context))
    scope = {}
    for cell in json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), scope)
        if is_parameters(cell):
            scope |= parameters
    return json.loads((home / "partial.json").read_text())["tables"]


@pytest.fixture(scope="module")
def one_group(tmp_path_factory):
    """A model with one head group a layer, so that only channels go, as in Gemma 3 270M."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", num_key_value_heads=1)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [claim for claims in CLAIMS.values() for claim in claims], ids=lambda claim: claim.id)
def test_the_part_of_a_claim_gives_its_contrast(claim, one_group, tmp_path, monkeypatch):
    """Also on a model of another shape, and with no more methods than the part names."""
    monkeypatch.setenv("MPSTUDY_RUN", str(tmp_path / "context.json"))
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    monkeypatch.setattr(IPython.display, "display", lambda *shown: None)
    known = notebook_parameters(ROOT / "notebooks" / f"{claim.run}.ipynb")
    small = {name: value for name, value in (SMALL | TEXTS).items() if name in known} | {"model": one_group}
    tables = computed(claim.run, small | claim.part | {"shares": [0.4]}, tmp_path)
    plt.close("all")
    assert claim.contrast in [row["contrast"] for row in tables["contrasts"]["rows"]]
