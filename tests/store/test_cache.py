"""A result is computed once for what decides it, anew when any of that changes, and is written whole or not at all."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
import torch
from helpers.tiny import byte_tokenizer, cast, pruned_model, tiny_model, tokens

from mpstudy.errors import StudyError
from mpstudy.inputs import models
from mpstudy.store import cache, codebase, digests, files
from mpstudy.store.paths import ROOT
from mpstudy.structure.scores import Scores


@pytest.fixture(autouse=True)
def computed(tmp_path, monkeypatch):
    """The cache of these tests, empty."""
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    return tmp_path / "computed"


class Counted:
    """A function that counts its calls."""

    def __init__(self, make):
        self.make, self.calls = make, 0

    def __call__(self):
        self.calls += 1
        return self.make()


KEY = {"model": "abc", "settings": {"rho": 0.05, "steps": 3}, "seed": 0}


# --- Entries ---------------------------------------------------------------------------------------------------


def test_json_is_computed_once():
    compute = Counted(lambda: {"perplexity": 12.5, "rows": [1, 2]})
    first = cache.cached_json("perplexity", KEY, "mpstudy.evaluation.perplexity", compute)
    again = cache.cached_json("perplexity", dict(reversed(KEY.items())), "mpstudy.evaluation.perplexity", compute)
    assert compute.calls == 1 and first == again
    assert first.items() >= {"perplexity": 12.5, "rows": [1, 2]}.items() and first["seconds"] >= 0


def test_a_file_is_computed_once():
    compute = Counted(lambda: Scores({"layers.0.mlp": torch.tensor([1.0, 2.0])}, {"pruner": "l1"}))
    first = cache.cached_file("scores", KEY, "mpstudy.pruners.magnitude", Scores, compute)
    again = cache.cached_file("scores", KEY, "mpstudy.pruners.magnitude", Scores, compute)
    assert compute.calls == 1 and first.meta == again.meta
    assert again.meta["pruner"] == "l1" and again.meta["seconds"] >= 0
    assert torch.equal(first.values["layers.0.mlp"], again.values["layers.0.mlp"])


@pytest.mark.parametrize(
    ("kind", "key", "module"),
    [
        ("zeroshot", KEY, "mpstudy.evaluation.perplexity"),
        ("perplexity", KEY | {"model": "abd"}, "mpstudy.evaluation.perplexity"),
        ("perplexity", KEY | {"seed": 1}, "mpstudy.evaluation.perplexity"),
        ("perplexity", KEY | {"settings": {"rho": 0.05, "steps": 4}}, "mpstudy.evaluation.perplexity"),
        ("perplexity", KEY | {"settings": {"rho": 0.05, "steps": 3, "more": None}}, "mpstudy.evaluation.perplexity"),
        ("perplexity", KEY, "mpstudy.recovery.lora"),
    ],
)
def test_every_part_of_the_key_counts(kind, key, module):
    compute = Counted(lambda: {})
    cache.cached_json("perplexity", KEY, "mpstudy.evaluation.perplexity", compute)
    cache.cached_json(kind, key, module, compute)
    assert compute.calls == 2


def test_another_torch_computes_anew(monkeypatch):
    compute = Counted(lambda: {})
    cache.cached_json("perplexity", KEY, "mpstudy.evaluation.perplexity", compute)
    monkeypatch.setattr(torch, "__version__", "99.0")
    cache.cached_json("perplexity", KEY, "mpstudy.evaluation.perplexity", compute)
    assert compute.calls == 2


def test_a_failed_computation_leaves_no_entry(computed):
    def fail():
        raise StudyError("no")

    with pytest.raises(StudyError):
        cache.cached_json("perplexity", KEY, "mpstudy.evaluation.perplexity", fail)
    with pytest.raises(StudyError):
        cache.cached_file("scores", KEY, "mpstudy.evaluation.perplexity", Scores, fail)
    assert not [path for path in computed.rglob("*") if path.is_file()]


def test_an_interrupted_write_leaves_no_entry(computed, monkeypatch):
    def save(self, path):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(Scores, "save", save)
    with pytest.raises(KeyboardInterrupt):
        cache.cached_file("scores", KEY, "mpstudy.evaluation.perplexity", Scores, lambda: Scores({}, {}))
    assert not [path for path in computed.rglob("*") if path.is_file()]


def test_a_truncated_entry_is_named(computed):
    scores = Scores({"layers.0.mlp": torch.ones(4)}, {})
    cache.cached_file("scores", KEY, "mpstudy.evaluation.perplexity", Scores, lambda: scores)
    (entry,) = computed.rglob("*.safetensors")
    os.truncate(entry, entry.stat().st_size - 1)
    with pytest.raises(StudyError, match=entry.name):
        cache.cached_file("scores", KEY, "mpstudy.evaluation.perplexity", Scores, lambda: scores)


# --- Digests -----------------------------------------------------------------------------------------------------


def test_a_damaged_json_entry_is_named(computed):
    store = lambda: cache.cached_json("kind", {}, "mpstudy.evaluation.perplexity", dict)  # noqa: E731
    store()
    (entry,) = computed.glob("kind/*.json")
    entry.write_text('{"sec')
    with pytest.raises(StudyError, match=f"{entry.name} is damaged; delete it"):
        store()


def test_equal_models_have_equal_digests():
    assert digests.weights_digest(tiny_model()) == digests.weights_digest(tiny_model())


def test_one_bit_of_one_weight_changes_the_digest():
    model = tiny_model()
    before = digests.weights_digest(model)
    weight = model.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        weight.view(torch.int32)[3, 5] ^= 1
    assert digests.weights_digest(model) != before
    with torch.no_grad():
        weight.view(torch.int32)[3, 5] ^= 1
    assert digests.weights_digest(model) == before


def test_shape_dtype_and_config_change_the_digest():
    rope = {"rope_type": "default", "rope_theta": 5e5}
    different = [tiny_model(), tiny_model(seed=1), pruned_model(), cast(tiny_model(), torch.bfloat16)]
    different += [tiny_model(rms_norm_eps=1e-5), tiny_model(rope_parameters=rope)]
    assert len({digests.weights_digest(model) for model in different}) == len(different)


def test_where_a_model_lies_does_not_change_the_digest(tmp_path):
    tiny_model().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    loaded = {digests.weights_digest(models.load_model(str(tmp_path / name), device="cpu")) for name in ("one", "two")}
    assert loaded == {digests.weights_digest(tiny_model())}


def test_tokens_have_a_digest_of_shape_and_values():
    batch = tokens(4, 6)
    assert digests.tokens_digest(batch) == digests.tokens_digest([batch.clone()])
    other = batch.clone()
    other[2, 3] += 1
    found = {digests.tokens_digest(value) for value in (batch, other, batch.view(3, 8), batch.split(2), batch.t())}
    assert len(found) == 5


def test_a_tokenizer_has_a_digest_of_its_content(tmp_path):
    byte_tokenizer().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (models.load_tokenizer(str(tmp_path / name)) for name in ("one", "two"))
    assert digests.tokenizer_digest(one) == digests.tokenizer_digest(two)
    one("Used before.")
    assert digests.tokenizer_digest(one) == digests.tokenizer_digest(two)
    two.add_tokens(["<more>"])
    assert digests.tokenizer_digest(one) != digests.tokenizer_digest(two)


# --- Code --------------------------------------------------------------------------------------------------------


def library_digest(root) -> str:
    code = "from mpstudy.store.codebase import library_digest; print(library_digest('mpstudy.a'))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_digest_follows_what_a_module_imports(tmp_path):
    package = tmp_path / "mpstudy"
    (package / "store").mkdir(parents=True)
    for name in ("__init__", "errors", "store/__init__", "store/codebase", "store/paths"):
        shutil.copy(ROOT / "mpstudy" / f"{name}.py", package / f"{name}.py")
    (package / "a.py").write_text("def f():\n    from . import b\n")
    (package / "b.py").write_text("from mpstudy import c\n")
    (package / "c.py").write_text("x = 1\n")
    (package / "stranger.py").write_text("from . import a\n")
    before = library_digest(tmp_path)
    (package / "stranger.py").write_text("from . import a, b\n")
    (package / "__init__.py").write_text("__version__ = '99'\n")
    assert library_digest(tmp_path) == before
    seen = {before}
    for name, text in (("c", "x = 2\n"), ("b", "from mpstudy import c, errors\n"), ("a", "from . import b\n")):
        (package / f"{name}.py").write_text(text)
        seen.add(library_digest(tmp_path))
    assert len(seen) == 4


def test_results_do_not_hang_on_the_runner():
    names = {
        path.name
        for path in codebase.imported_files(
            "import mpstudy.pruners.moreau, mpstudy.evaluation.perplexity, mpstudy.recovery.lora"
        )
    }
    assert {"moreau.py", "envelope.py", "gradients.py", "evaluate.py", "recover.py", "recipe.py"} <= names
    assert not names & {"run.py", "report.py", "plots.py", "cli_model.py", "study.py", "cache.py", "__init__.py"}


# --- Files -------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "table.csv"
    files.write_atomically(path, "old")
    files.write_atomically(path, "né")
    assert path.read_text(encoding="utf-8") == "né"
    assert [other.name for other in path.parent.iterdir()] == ["table.csv"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), files.replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
