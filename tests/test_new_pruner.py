"""The promise of the registry: a pruner in one file and one line of import works everywhere."""

import inspect
import json
import os
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.artists import NOTE, curves, grid, measured, points
from helpers.tiny import tiny_folder, tokens

from mpstudy import figures
from mpstudy.figures import tables
from mpstudy.pruners import PRUNERS
from mpstudy.registry import FREE_COLOURS, FREE_MARKERS
from mpstudy.store.paths import DATA, NOTEBOOKS, ROOT, cache_dir

FILE = '''"""Score a unit by the squared norm of its gradient."""

from ..structure.scores import Scores, unit_scores
from .registry import PRUNERS
from .taylor import gradients_of


@PRUNERS.register("gradient-norm")
def gradient_norm(model, batches, units, *, seed=0) -> Scores:
    """Sum of the squared gradients of a unit's weights."""
    loss, gradients = gradients_of(model, batches, units)
    return unit_scores(units, lambda name: gradients[name].square(), {"pruner": "gradient-norm", "loss": loss})
'''
NAME, SEEDS, BOTH = "gradient-norm", [0, 1, 2], ["taylor", "gradient-norm"]


# --- Commands and notebooks of a copy of the package -------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with the new file and its line in ``pruners/__init__.py``."""
    root = tmp_path_factory.mktemp("copy")
    for folder in (ROOT / "mpstudy", NOTEBOOKS, DATA):
        shutil.copytree(folder, root / folder.name, ignore=shutil.ignore_patterns("__pycache__", "cache"))
    (root / "mpstudy/pruners/gradient_norm.py").write_text(FILE)
    registered = root / "mpstudy/pruners/__init__.py"
    last = "from . import moreau_release  # noqa: F401\n"
    assert last in registered.read_text()
    registered.write_text(registered.read_text().replace(last, last + "from . import gradient_norm  # noqa: F401\n"))
    return root


def run(package, *words) -> str:
    """What ``python -m mpstudy`` of the copy says."""
    own = {"PYTHONPATH": str(package), "MPSTUDY_CACHE": str(cache_dir().resolve())}
    environment = os.environ | own | {"MPSTUDY_COMPUTED": str(package / "computed")}
    command = [sys.executable, "-m", "mpstudy", *map(str, words)]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_scores_and_prunes_from_the_command_line(package, tmp_path):
    model = tiny_folder(tmp_path / "tiny")
    np.save(tmp_path / "tokens.npy", tokens().numpy())
    scores, smaller = tmp_path / "scores.safetensors", tmp_path / "pruned"
    given = ["--pruner", NAME, "--tokens", tmp_path / "tokens.npy", "--layers", "0-1", "--out", scores]
    assert f"scored by {NAME}" in run(package, "score", model, *given)
    said = run(package, "prune", model, "--scores", scores, "--ratio", "0.5", "--out", smaller)
    assert "parameters kept" in said
    facts = json.loads((smaller / "pruned.json").read_text())
    left = {"attention": 1, "mlp": 12}
    assert facts["units"] == {f"layers.{n}.{kind}": count for n in (0, 1) for kind, count in left.items()}


@pytest.mark.slow
def test_it_goes_through_a_notebook(package, tmp_path):
    model = tiny_folder(tmp_path / "tiny")
    parameters = {
        "model": model, "layers": "0-1", "samples": 2, "length": 16, "corpora": "[wiki]", "window": 32, "windows": 2,
        "shares": "[0.2]", "pruners": f"[taylor,{NAME}]", "budget": 2, "seeds": "[0,1]",
    }  # fmt: skip
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    run(package, "run", "20_moreau_pruning", *given, "--reports", tmp_path / "reports")
    result = json.loads((tmp_path / "reports/custom/results/20_moreau_pruning.json").read_text())
    perplexity = pd.DataFrame(result["tables"]["perplexity"]["rows"])
    found = perplexity.groupby("method")["seed"].apply(list).to_dict()
    assert {method: found[method] for method in BOTH} == {"taylor": [0, 1], NAME: [0, 1]}
    assert (perplexity["perplexity"] > 1).all()
    page = (tmp_path / "reports/custom/20_moreau_pruning.ipynb").read_text()
    assert NAME in {row["method"] for row in result["tables"]["gaps"]["rows"]}
    assert NAME in page and "image/png" in page


# --- Figures and tables ------------------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch):
    """The registry with the new name in it, for one test."""
    monkeypatch.setattr(PRUNERS, "_records", dict(PRUNERS._records))
    PRUNERS.register(NAME)(lambda model, batches, units, *, seed=0: None)
    yield
    plt.close("all")


def frame(value: str | tuple[str, ...], **columns) -> pd.DataFrame:
    return measured(grid(pruner=BOTH, **columns), 0.1, 0.9, *([value] if isinstance(value, str) else value))


def methods(value, *others: str, **columns) -> pd.DataFrame:
    """The same with methods in place of pruners, some more of them."""
    values = [value] if isinstance(value, str) else value
    return measured(grid(method=[*BOTH, *others], **columns), 0.1, 0.9, *values)


DRAWN = {
    "baselines.over_sparsity": lambda draw: draw(
        frame("perplexity", corpus=["wiki"], sparsity=["0.5"], seed=SEEDS).rename(columns={"pruner": "method"}),
        {"wiki": 12.0}, NOTE,
    ),
    "baselines.error_by_layer": lambda draw: draw(
        methods("error", "sparsegpt", linear=["a.q_proj", "a.o_proj"], layer=[1], seed=SEEDS), NOTE
    ),
    "cost.table_one": lambda draw: draw(
        frame("estimate", share=[0.1, 0.2], corpus=["wiki"]).assign(low=0.0, high=1.0, by_chance=0.1),
        grid(share=[0.1, 0.2], corpus=["wiki"]).assign(estimate=0.5, low=0.4, high=0.6), NOTE,
    ),
    "cost.spread": lambda draw: draw(
        frame("change", corpus=["wiki"], seed=SEEDS).rename(columns={"pruner": "method"}), NOTE
    ),
    "cost.steady_and_good": lambda draw: draw(
        frame(("traded", "perplexity"), corpus=["wiki"]).rename(columns={"pruner": "method"}).assign(
            traded_low=0.0, traded_high=1.0, low=0.05, high=1.0
        ), NOTE,
    ),
    "data.over_tokens": lambda draw: draw(
        frame("estimate", length=[64], tokens=[640, 1280]).assign(low=0.0, high=1.0),
        frame("estimate", corpus=["wiki"], length=[64], tokens=[640, 1280]).assign(low=0.0, high=1.0), None, NOTE,
    ),
    "instability.by_method": lambda draw: draw(
        methods("estimate", measure=["traded"]).assign(low=0.0, high=1.0), NOTE
    ),
    "instability.traded": lambda draw: draw(
        frame("estimate", panel=["formats"], change=["bf16"]).assign(low=0.0, high=1.0), NOTE
    ),
    "pruning.against_taylor": lambda draw: draw(
        methods(("estimate", "low", "high"), corpus=["wiki"], share=[0.1, 0.2]), NOTE
    ),
    "pruning.over_compute": lambda draw: draw(methods(("nll", "gradients"), corpus=["wiki"], seed=SEEDS), NOTE),
    "pruning.by_layer": lambda draw: draw(methods(("jaccard_taylor", "chance"), layer=[1, 2], seed=SEEDS), NOTE),
    "methods.pareto": lambda draw: draw(
        frame(("estimate", "speedup")).rename(columns={"pruner": "pipeline"}).assign(low=0.05, high=1.0), NOTE
    ),
    "recovery.over_rows": lambda draw: draw(
        frame("estimate", corpus=["wiki"], rows=[0, 128]).assign(low=0.0, high=1.0), NOTE
    ),
    "recovery.accuracy_differences": lambda draw: draw(
        frame("estimate", task=["facts"], rows=[8], against=["dense"]).assign(low=0.0, high=1.0), NOTE
    ),
    "recovery.recovery_curves": lambda draw: draw(frame("validation_loss", step=[0, 1], seed=SEEDS), NOTE),
}  # fmt: skip
WITHOUT = {"baselines.look", "claims.forest", "instability.doses", "instability.sources"}  # of named pruners
WITHOUT |= {f"methods.{name}" for name in ("against_taylor", "frontier", "look", "over_strength")}  # a look a text
WITHOUT |= {f"envelope.{name}" for name in ("convergence", "over_steps", "over_radius", "periods", "variants")}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_draws_it(name, registered):
    module, function = name.split(".")
    figure = DRAWN[name](getattr(getattr(figures, module), function))
    looks = {shown.look for axis in figure.axes for label, shown in points(axis).items() if label == NAME}
    dots = {
        (line.get_color(), line.get_marker()) for axis in figure.axes for line in axis.lines if line.get_label() == NAME
    }
    assert looks | dots == {(FREE_COLOURS[0], FREE_MARKERS[0])}
    shown = {label for axis in figure.axes for label in [*points(axis), *curves(axis)]}
    assert set(BOTH) <= shown


def test_no_figure_is_forgotten():
    modules = [getattr(figures, chapter) for chapter in set(figures.__all__) - {"Chapter", "look", "rows", "tables"}]
    public = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert public == DRAWN.keys() | WITHOUT


def test_tables_hold_it(tmp_path):
    table = tables.cells(frame("perplexity", corpus=["wiki"], seed=SEEDS), ["pruner"], "corpus", "perplexity", 1)
    assert list(table["pruner"]) == BOTH
    tables.save(table, tmp_path / "all", "All.")
    assert all(NAME in (tmp_path / f"all.{form}").read_text() for form in ("csv", "md", "tex"))
