"""A result is computed once for what decides it, anew when any of that changes, and is written whole or not at all."""

import functools
import os
import shutil
import stat

import pytest
import torch
from helpers.packages import names, package
from helpers.tiny import byte_tokenizer, cast, pruned_model, tiny_model, tokens

from mpstudy.errors import StudyError
from mpstudy.evaluation.perplexity import perplexity
from mpstudy.inputs import models
from mpstudy.pruners.magnitude import l1
from mpstudy.recovery.lora import train_adapter
from mpstudy.store import cache, digests, files, versions
from mpstudy.store.cache import Step
from mpstudy.store.reach import Library
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


SETTINGS = {"settings": {"rho": 0.05, "steps": 3}, "seed": 0}


def step(kind: str = "perplexity", code=(perplexity,), **changes) -> Step:
    """A step on tokens, changed."""
    return Step(kind, code, **{"tokens": tokens(4, 6), "settings": SETTINGS} | changes)


# --- Entries ---------------------------------------------------------------------------------------------------


def test_json_is_computed_once():
    compute = Counted(lambda: {"perplexity": 12.5, "rows": [1, 2]})
    first = cache.cached_json(step(), compute)
    again = cache.cached_json(step(settings=dict(reversed(SETTINGS.items()))), compute)
    assert compute.calls == 1 and first == again
    assert first.items() >= {"perplexity": 12.5, "rows": [1, 2]}.items() and first["seconds"] >= 0


def test_a_file_is_computed_once():
    compute = Counted(lambda: Scores({"layers.0.mlp": torch.tensor([1.0, 2.0])}, {"pruner": "l1"}))
    first = cache.cached_file(step("scores", (l1,)), Scores, compute)
    again = cache.cached_file(step("scores", (l1,)), Scores, compute)
    assert compute.calls == 1 and first.meta == again.meta
    assert again.meta["pruner"] == "l1" and again.meta["seconds"] >= 0
    assert torch.equal(first.values["layers.0.mlp"], again.values["layers.0.mlp"])


@pytest.mark.parametrize(
    "other",
    [
        lambda: step("zeroshot"),
        lambda: step(models=(tiny_model(),)),
        lambda: step(models=(tiny_model(seed=1),)),
        lambda: step(models=(tiny_model(), tiny_model(seed=1))),
        lambda: step(models=(tiny_model(seed=1), tiny_model())),
        lambda: step(models=(emulated(tiny_model()),)),
        lambda: step(tokens=tokens(4, 6).view(6, 4)),
        lambda: step(settings=SETTINGS | {"seed": 1}),
        lambda: step(settings=SETTINGS | {"settings": {"rho": 0.05, "steps": 4}}),
        lambda: step(settings=SETTINGS | {"settings": {"rho": 0.05, "steps": 3, "more": None}}),
        lambda: step(code=(train_adapter,)),
        lambda: step(code=(perplexity, train_adapter)),
        lambda: step(code=(l1,)),
    ],
)
def test_every_part_of_the_key_counts(other):
    compute = Counted(lambda: {})
    cache.cached_json(step(), compute)
    cache.cached_json(other(), compute)
    assert compute.calls == 2
    cache.cached_json(other(), compute)
    assert compute.calls == 2


def test_a_step_on_other_tokens_digests_its_models_once(monkeypatch):
    models, digested = (tiny_model(),), []
    monkeypatch.setattr(cache, "model_digest", lambda model: digested.append(model) or digests.model_digest(model))
    first = step(models=models)
    others = [first.on(tokens(count)).key for count in (1, 2)]
    assert len(digested) == 1
    assert others == [step(models=models, tokens=tokens(count)).key for count in (1, 2)]


def emulated(model):
    model.arithmetic = "bfloat16"
    return model


def test_the_order_of_models_counts():
    one, two = tiny_model(), tiny_model(seed=1)
    assert step(models=(one, two)).key != step(models=(two, one)).key


def test_the_number_of_threads_counts(monkeypatch):
    first = step().key
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert step().key != first


def test_another_torch_computes_anew(monkeypatch):
    compute = Counted(lambda: {})
    cache.cached_json(step(), compute)
    monkeypatch.setattr(versions, "version", lambda name: "99.0")
    cache.cached_json(step(), compute)
    assert compute.calls == 2


def test_a_failed_computation_leaves_no_entry(computed):
    def fail():
        raise StudyError("no")

    with pytest.raises(StudyError):
        cache.cached_json(step(), fail)
    with pytest.raises(StudyError):
        cache.cached_file(step("scores"), Scores, fail)
    assert not [path for path in computed.rglob("*") if path.is_file()]


def test_an_interrupted_write_leaves_no_entry(computed, monkeypatch):
    def save(self, path):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(Scores, "save", save)
    with pytest.raises(KeyboardInterrupt):
        cache.cached_file(step("scores"), Scores, lambda: Scores({}, {}))
    assert not [path for path in computed.rglob("*") if path.is_file()]


def test_a_truncated_entry_is_named(computed):
    scores = Scores({"layers.0.mlp": torch.ones(4)}, {})
    cache.cached_file(step("scores"), Scores, lambda: scores)
    (entry,) = computed.rglob("*.safetensors")
    os.truncate(entry, entry.stat().st_size - 1)
    with pytest.raises(StudyError, match=entry.name):
        cache.cached_file(step("scores"), Scores, lambda: scores)


def test_a_damaged_json_entry_is_named(computed):
    cache.cached_json(step("kind"), dict)
    (entry,) = computed.glob("kind/*.json")
    entry.write_text('{"sec')
    with pytest.raises(StudyError, match=f"{entry.name} is damaged; delete it"):
        cache.cached_json(step("kind"), dict)


# --- Digests -----------------------------------------------------------------------------------------------------


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


def test_the_code_of_a_step_is_what_its_functions_reach(tmp_path, monkeypatch):
    files = {
        "a.py": "def f():\n    from . import b\n    return b.g()\n",
        "b.py": "from mpstudy import c\ndef g():\n    return c.x\n",
        "c.py": "x = 1\ny = 1\n",
        "stranger.py": "from . import a\n",
    }

    def key(**changed: str) -> str:
        changed = {f"{name}.py": text for name, text in changed.items()}
        library = package(tmp_path, files | changed)
        monkeypatch.setattr(cache, "library", lambda: library)
        return Step("kind", (function,)).key

    def function(): ...

    function.__module__, function.__qualname__ = "mpstudy.a", "f"
    first = key()
    assert key(stranger="from . import a, b\n", __init__="__version__ = '99'\n", c="x = 1\ny = 2\n") == first
    assert key(c='"""About c."""\nx: int = 1  # one\n'.replace(": int", "")) == first
    found = {first, key(c="x = 2\n"), key(b="from mpstudy import c\ndef g():\n    return c.x, c.y\n")}
    found.add(key(a="def f():\n    from . import b\n    return b.g\n"))
    assert len(found) == 4


def test_results_do_not_hang_on_the_runner():
    code = (
        "from mpstudy.pruners.moreau import moreau\nfrom mpstudy.evaluation.perplexity import perplexity\n"
        "from mpstudy.recovery.lora import train_adapter\nmoreau, perplexity, train_adapter"
    )
    files = {name.rpartition(".")[0] for name in names(Library(), code)}
    modules = {name.rpartition(".")[2] for name in files}
    assert {"moreau", "envelope", "shifted", "perplexity", "lora", "loop"} <= modules
    tops = {name.partition(".")[0] for name in files}
    assert not tops & {"runner", "figures", "cli", "study", "record"} and "store.cache" not in files


# --- A user's own functions --------------------------------------------------------------------------------------

OWN = """
import functools
import numpy as np
from scipy.stats import norm
from mpstudy.pruners import PRUNERS, magnitude, taylor
from mpstudy.structure.units import REDUCTIONS
from mpstudy.structure.scores import Scores

FACTOR = {factor}
RATE = {rate}
OPTIONS = {{"rho": {rho}}}


def helper(x):
    return x * {helper}


class Part:
    def run(self):
        return {method}


def mine(model, batches, units, *, seed=0, scale=RATE):
    def inner():
        return helper(FACTOR)
    return [inner() for _ in batches], OPTIONS, Part().run(), {used}


def logged(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) + {added}
    return wrapper


@logged
def decorated(x):
    return helper(x)


@functools.cache
def kept(x):
    return helper(x)


def made(limit):
    def closure():
        return limit
    return closure


closed = made({limit})
bound = functools.partial(helper, {bound})
"""


@pytest.fixture
def own(tmp_path):
    """A user's file, written with changes and loaded: its functions."""
    counter = iter(range(100))

    def load(**changes) -> dict:
        given = {
            "factor": 1,
            "rho": 0.1,
            "helper": 2,
            "method": 3,
            "limit": 4,
            "bound": 5,
            "added": 6,
            "rate": 7,
            "used": "None",
        }
        path = tmp_path / str(next(counter)) / "own_pruners.py"
        path.parent.mkdir()
        path.write_text(OWN.format(**given | changes))
        scope = {"__name__": "own_pruners"}
        exec(compile(path.read_text(), path, "exec"), scope)
        return scope

    return load


def key_of(function) -> str:
    return Step("scores", (function,)).key


@pytest.mark.parametrize(
    "name, change",
    [
        ("mine", {"factor": 2}),
        ("mine", {"rho": 0.2}),
        ("mine", {"helper": 3}),
        ("mine", {"method": 4}),
        ("mine", {"rate": 8}),
        ("mine", {"used": "taylor.gradients_of"}),
        ("closed", {"limit": 5}),
        ("bound", {"bound": 6}),
        ("bound", {"helper": 3}),
        ("decorated", {"added": 7}),
        ("decorated", {"helper": 3}),
        ("kept", {"helper": 3}),
    ],
)
def test_all_that_a_users_function_names_counts(own, name, change):
    assert key_of(own()[name]) == key_of(own()[name])
    assert key_of(own()[name]) != key_of(own(**change)[name])


def test_what_a_users_function_does_not_name_does_not_count(own):
    assert key_of(own()["helper"]) == key_of(own(factor=2, rho=2, method=2, limit=2)["helper"])


@pytest.mark.parametrize(
    "used, name",
    [
        ("taylor.gradients_of", "gradients_of"),
        ("magnitude.l1", "_magnitude"),
        ("Scores", "Scores"),
        ("REDUCTIONS['sum']", "REDUCTIONS"),
        ("PRUNERS", "PRUNERS"),
        ("PRUNERS['smoothgrad']", "smoothgrad"),
        ("[PRUNERS[name] for name in ('moreau',)]", "envelope_gradients"),
    ],
)
def test_what_a_users_function_uses_of_the_library_counts(own, used, name):
    code = cache.Code(Library(), [own(used=used)["mine"]])
    assert name in {key[1] for key in Library().reached(code.roots, code.strings).forms}
    plain = cache.Code(Library(), [own()["mine"]])
    assert name not in {key[1] for key in Library().reached(plain.roots, plain.strings).forms}


def test_packages_that_a_users_function_uses_count(own):
    def packages(used: str) -> frozenset[str]:
        code = cache.Code(Library(), [own(used=used)["mine"]])
        return Library().reached(code.roots).packages

    assert packages("None") == frozenset()
    assert packages("np.mean") == {"numpy"} and packages("norm.cdf") == {"scipy"}


def test_a_decorated_function_of_the_library_is_itself():
    wrapped = functools.wraps(perplexity)(lambda *arguments: perplexity(*arguments))
    assert key_of(wrapped) == key_of(perplexity)


def test_a_function_without_a_source_is_an_error():
    scope = {"__name__": "typed_in"}
    exec("def f(): return 1", scope)
    with pytest.raises(StudyError, match="the source of <function f .* cannot be read"):
        key_of(scope["f"])


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
