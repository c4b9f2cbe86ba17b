"""Each parameter that cannot be used is one clear error before any work; the study's own parameters pass."""

import math

import pytest
from helpers.tiny import tiny_folder
from transformers import GPT2Config

from mpstudy.errors import StudyError
from mpstudy.inputs import corpora
from mpstudy.pruners import PRUNERS
from mpstudy.runner import checks
from mpstudy.runner.profiles import notebook_parameters
from mpstudy.store.paths import NOTEBOOKS

NAN, INF = math.nan, math.inf


COUNTS = ("samples", "length", "window", "windows", "task_items", "new_tokens", "validation_rows", "repeats")
COUNTS += ("max_steps", "release_steps", "budget", "pruning_steps", "sparse_samples", "sparse_length")
COUNTS += ("traced", "averaged_rows", "long_length", "long_window", "long_windows", "recovery_rows")
LISTS = ("seeds", "shares", "rhos", "radii", "lengths", "pruners", "solvers", "changes", "read")
LISTS += ("row_counts", "compared", "corpora", "tasks")
LISTS += ("methods", "sparsities", "lipschitz_seeds", "rows", "moreau_rows", "solver_steps")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=6)


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    """Short documents and twelve instructions in place of the bundled ones."""
    monkeypatch.setattr(corpora, "load_texts", lambda name, local=None: ["A short text.", "And another."] * 20)
    monkeypatch.setattr(corpora, "load_instructions", lambda name: [{}] * 12)


def parameters(model: str) -> dict:
    """Parameters of the kind the study's notebooks have, for a small model."""
    return {
        "model": model, "layers": "1-4", "calibration": "sotu-early", "samples": 10, "length": 64,
        "corpora": ["sotu-late", "wiki"], "window": 128, "windows": 12,
        "pruners": list(PRUNERS), "compared": ["moreau"],
        "changes": ["bfloat16", "int8", "float16-arithmetic", "noise-1e-2", "isotropic-5e-2"],
        "methods": ["wanda", "moreau"], "updated": [], "sparsities": [0.5, "2:4"], "shown": 0.6,
        "pruning_steps": 2, "sparse_samples": 16, "sparse_length": 128,
        "compared_changes": ["sample", "length-32", "corpus-wiki"],
        "budget": 4, "sweep_seeds": 4, "quality_seeds": 6, "rho": 0.05, "scopes": ["local"], "instability": "10_run",
        "rhos": [0.01, 0.05, 0.2], "etas": [0.002], "tols": [0.1], "sigmas": [0.05], "tol": 0.1, "sigma": 0.05,
        "choose": True, "chosen_on": "novel", "choice_seeds": [100], "sparse_seeds": [0, 1], "richer": [],
        "eta": 0.002, "radii": [0.02, 0.2], "lengths": [64, 256], "max_steps": 24,
        "solvers": ["spectral", "plain"], "precision": 0.01, "noise": 0.01, "release_steps": 10,
        "instructions": "alpaca-demo", "row_counts": [6, 8], "new_tokens": 8, "references": [],
        "validation_rows": 4, "epochs": 1, "batch_size": 2, "lr": 1e-3, "warmup_steps": 2, "cutoff": 160,
        "recovery_rows": 8, "long_window": 256, "long_windows": 2, "model_share": 0.2,
        "tasks": ["facts", "agreement", "cloze"], "task_items": 60, "repeats": 5, "seeds": [0, 1, 2],
        "rows": [10, 20], "long_rows": 10, "long_length": 1024, "moreau_rows": [10], "averaged_rows": 20,
        "solver_steps": [1, 5], "traced": 2, "lipschitz_seeds": [0], "corrected": True,
        "share": 0.3, "shares": [0.1, 0.3], "lrs": [3e-4, 1e-3], "lora_seeds": [0, 1],
        "title": "a parameter without a rule", "micro_batch_size": 2, "prompts": ["Why?"],
        "read": ["12_run", "30_run"], "published": "published.csv",
        "primary": {"table-one": ["12_run", "words", "%", 0], "recovery": ["30_run", "words", "%", 0.5]},
    }  # fmt: skip


def test_the_studys_parameters_pass(model):
    checks.validate(parameters(model))


@pytest.mark.parametrize(
    "edge",
    [
        {"share": 0}, {"share": 0.0}, {"shares": [0.0, 0.5]}, {"eta": 0}, {"eta": 0.0}, {"rho": 1}, {"layers": "0-5"},
        {"layers": "5"}, {"seeds": [7]}, {"long_rows": 0},
        {"warmup_steps": 0}, {"window": 2}, {"length": 2}, {"samples": 1},
        {"row_counts": [1], "warmup_steps": 0}, {"corpora": ["novel"]}, {"instructions": "alpaca-cleaned"},
        {"calibration": "c4"},
    ],
)  # fmt: skip
def test_values_at_the_edge_pass(model, edge):
    checks.validate(parameters(model) | edge)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # unknown names
        ({"methods": ["wanda", "masked"]}, "unknown method 'masked'; known: admm, admm-gradual, joint-removal, m"),
        ({"updated": ["obs"]}, "unknown method 'obs'; known: "),
        ({"sparsities": [0.5, "4:2"]}, "a sparsity is a number in"),
        ({"shown": 1.0}, "a sparsity is a number in"),
        ({"pruners": ["taylor", "tailor"]}, "unknown pruner 'tailor'; known: .*moreau, .*taylor"),
        ({"calibration": "brown"}, "unknown corpus 'brown'; known: .*sotu-early"),
        ({"calibration": "alpaca-demo"}, "unknown corpus 'alpaca-demo'; known: .*sotu-early"),
        ({"corpora": ["wiki", "wikitext"]}, "unknown corpus 'wikitext'; known: .*wikitext2"),
        ({"instructions": "wiki"}, "unknown corpus 'wiki'; known: alpaca-cleaned, alpaca-demo"),
        ({"tasks": ["facts", "hella"]}, "unknown zero-shot task 'hella'; known: agreement, agreement_far"),
        ({"changes": ["int3"]}, "unknown change 'int3'; known: bfloat16"),
        ({"compared_changes": ["corpus-brown"]}, "unknown corpus 'brown'; known: "),
        ({"scopes": ["local", "gloabl"]}, "unknown scope 'gloabl'; known: global, local"),
        ({"instability": 10}, "instability must be text"),
        ({"quality_seeds": 0}, "quality_seeds must be a whole number"),
        ({"solvers": ["spectral", "newton"]}, "unknown solver 'newton'; known: plain, spectral"),
        ({"model": "gpt-5"}, "no model 'gpt-5': give a bundled name"),
        ({"model": "/no/such/folder"}, "no model '/no/such/folder': give a bundled name"),
        # shares
        *[
            ({"share": bad}, r"share must be a number in \[0, 1\), not ")
            for bad in (-0.1, 1, 1.0, 1.5, NAN, INF, "0.2", True)
        ],
        ({"shares": [0.2, 1.0]}, r"element 1 of shares must be a number in \[0, 1\), not 1.0"),
        # signs, finiteness
        *[({"rho": bad}, "rho must be a finite number > 0, not ") for bad in (0, -0.1, NAN, INF, "0.1", None, True)],
        *[({"eta": bad}, "eta must be a finite number >= 0, not ") for bad in (-0.1, NAN, INF, "0.1", None)],
        *[({name: 0}, f"{name} must be a finite number > 0, not 0") for name in ("precision", "noise")],
        ({"radii": [0.1, 0]}, "element 1 of radii must be a finite number > 0, not 0"),
        *[
            ({"lengths": [64, bad]}, "element 1 of lengths must be a whole number of at least 2, not ")
            for bad in (1, 2.5, "64")
        ],
        ({"rhos": [0.1, -0.1]}, "element 1 of rhos must be a finite number > 0, not -0.1"),
        # counts and seeds
        *[
            ({name: bad}, f"{name} must be a whole number of at least [12], not ")
            for name in COUNTS
            for bad in (0, -1, 1.5, "3", True, NAN)
        ],
        ({"window": 1}, "window must be a whole number of at least 2, not 1"),
        ({"length": 1}, "length must be a whole number of at least 2, not 1"),
        *[
            ({"seeds": [bad]}, r"element 0 of seeds must be a whole number from 0 to 2\*\*53 - 1, not ")
            for bad in (-1, 0.5, "0", None, True, 2**53)
        ],
        ({"seeds": [1, 2, 1]}, r"seeds: \[1, 2, 1\] names 1 twice"),
        ({"pruners": ["taylor", "taylor"]}, "pruners: .* names 'taylor' twice"),
        *[
            ({name: bad}, f"{name}: a list (with at least one element )?is needed, not ")
            for name in LISTS
            for bad in ([], "taylor", 3, None)
        ],
        ({"row_counts": [8, 6]}, r"row_counts: a list in rising order is needed, not \[8, 6\]"),
        ({"rows": [20, 10]}, r"rows: a list in rising order is needed, not \[20, 10\]"),
        ({"long_rows": -1}, "long_rows must be a whole number of at least 0, not -1"),
        ({"corrected": 1}, "corrected must be true or false, not 1"),
        ({"row_counts": [0]}, "element 0 of row_counts must be a whole number of at least 1, not 0"),
        ({"references": ["owner/absent"]}, "'owner/absent' is not in the local cache"),
        # layers
        *[({"layers": bad}, "layers .* are not of the form '4-25' or '7'") for bad in ("", "4-", "-4", "4:25")],
        ({"layers": None}, "layers must be text such as '4-25', .*, not None"),
        ({"layers": "2-6"}, "layers '2-6' are not inside this model's layers 0-5"),
        ({"layers": "4-2"}, "layers '4-2' are not inside this model's layers 0-5"),
        # recovery
        *[({name: 0}, f"{name} must be a .*, not 0") for name in ("lr", "epochs", "batch_size", "cutoff")],
        ({"lr": NAN}, "lr must be a finite number > 0, not nan"),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 1, not 1.5"),
        ({"warmup_steps": -1}, "warmup_steps must be a whole number of at least 0, not -1"),
        ({"warmup_steps": 4}, "warmup_steps 4 must be below the 3 steps of 6 rows"),
        ({"row_counts": [6, 9]}, "13 rows for training and validation are wanted, 'alpaca-demo' has 12"),
        ({"recovery_rows": 9}, "13 rows for training and validation are wanted, 'alpaca-demo' has 12"),
        # the claims of the figure
        *[
            ({"primary": {"table-one": bad}}, r"primary: 'table-one' needs \[run, words, unit, margin\], not ")
            for bad in (None, 2, "text", [], ["12_run", "words", 2], ["12_run", "words", 2, "%"])
        ],
        *[
            ({"primary": {"recovery": ["30_run", "words", "%", bad]}}, "primary: the margin of 'recovery' must be a ")
            for bad in (-1, "2", NAN, None)
        ],
        # text and window
        ({"window": 600}, "corpus 'sotu-late' is too short for a window of 600 tokens"),
        *[
            ({name: value}, f"{most} samples are wanted, and corpus 'sotu-early' has at most 2000 windows of text")
            for most in (10_001, 10**9)
            for name, value in {"samples": most, "sparse_samples": most, "rows": [10, most]}.items()
        ],
    ],
)  # fmt: skip
def test_a_bad_value_is_one_clear_error(model, change, message):
    with pytest.raises(StudyError, match=message) as caught:
        checks.validate(parameters(model) | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["length", "lengths", "long_length", "sparse_length", "window", "long_window"])
def test_lengths_have_room_in_the_model(model, monkeypatch, name):
    asked = []
    monkeypatch.setattr(checks, "check_room", lambda config, length, first: asked.append((length, first)))
    value = [3, 77] if name == "lengths" else 77
    checks.validate({"model": model, name: value})
    assert (77, []) in asked


def test_a_length_of_no_rows_needs_no_room(model, monkeypatch):
    monkeypatch.setattr(checks, "check_room", lambda config, length, first: pytest.fail("asked for room"))
    checks.validate({"model": model, "long_rows": 0, "long_length": 10**9})


def test_what_imports_nothing_is_checked_first(model):
    assert list(parameters(model)).index("pruners") < list(parameters(model)).index("rho")
    with pytest.raises(StudyError, match="rho must be a finite number > 0, not -1"):
        checks.validate(parameters(model) | {"pruners": ["no"], "rho": -1})


def test_every_parameter_of_the_projects_notebooks_has_a_rule():
    declared = [(name, path.stem) for path in NOTEBOOKS.glob("*.ipynb") for name in notebook_parameters(path)]
    assert len(declared) > 100
    assert [f"{name} of {notebook} has no rule" for name, notebook in declared if name not in checks.RULES] == []


def test_every_rule_is_of_a_parameter_that_some_notebook_has():
    declared = {name for path in NOTEBOOKS.glob("*.ipynb") for name in notebook_parameters(path)}
    assert checks.RULES.keys() - declared == set()


@pytest.mark.parametrize("bad", [NAN, -INF, [1, NAN], {"a": [INF]}, ({"b": NAN},)])
def test_numbers_of_a_parameter_without_a_rule_are_finite(bad):
    checks.validate({"rh0": -1, "scale": [0.5, {"a": None}], "flag": True})
    with pytest.raises(StudyError, match="scale: each number must be finite, not (nan|-?inf)"):
        checks.validate({"rh0": -1, "scale": bad})


def test_a_family_without_adapter_is_named(tmp_path):
    GPT2Config(vocab_size=64, n_embd=8, n_layer=6, n_head=2, bos_token_id=0, eos_token_id=0).save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="no adapter for model family 'gpt2'; known: gemma"):
        checks.validate(parameters(str(tmp_path)))


def test_a_hub_model_without_hub_is_an_error():
    with pytest.raises(StudyError, match="'owner/absent' is not in the local cache"):
        checks.validate(parameters("owner/absent"))


def test_parameters_without_a_model_are_checked_too():
    checks.validate({"published": "published.csv"})
    with pytest.raises(StudyError, match="unknown pruner"):
        checks.validate({"pruners": ["wanda"]})


@pytest.mark.slow
def test_parameters_of_the_bundled_model_pass(monkeypatch):
    monkeypatch.undo()
    small = parameters("smollm2-135m-instruct-ungrouped") | {"layers": "4-25", "row_counts": [160]}
    checks.validate(small)
    with pytest.raises(StudyError, match="has no room in the 8192 positions"):
        checks.validate(small | {"corpora": ["wiki"], "window": 10_000_000})
