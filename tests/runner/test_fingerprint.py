"""Fingerprints change with what decides a result, and with nothing else: the package and its notebooks are changed."""

import ast
import dataclasses
import json
import shutil

import huggingface_hub
import pytest
from helpers.copies import Copy, WithoutTexts
from helpers.packages import package
from helpers.tiny_study import TinyStudy

from mpstudy.inputs import content, manifest
from mpstudy.pruners import PRUNERS
from mpstudy.runner import fingerprint as fingerprints
from mpstudy.runner import machine
from mpstudy.runner.fingerprint import code_cells, differences, fingerprint, identity, reach
from mpstudy.runner.profiles import Run, load_profile
from mpstudy.runner.status import identities
from mpstudy.store import cache, versions
from mpstudy.store.paths import DATA
from mpstudy.store.reach import Library

RUNS = {run.name for run in load_profile("smoke").runs}
RECOVERING = {"26_methods", "30_lora_recovery"}
SUMMARY = "40_figures_and_tables"  # it reads all others


@pytest.fixture(scope="module")
def known() -> dict[str, dict]:
    """The identities of the smoke profile as the project is."""
    return identities(load_profile("smoke"), Library())


@pytest.fixture(scope="module")
def before(known) -> dict[str, str]:
    """The fingerprints of these."""
    return {name: fingerprint(identity) for name, identity in known.items()}


@pytest.fixture
def copy(tmp_path) -> Copy:
    return Copy(tmp_path / "copy")


def stale(before: dict[str, str], now: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != now[name]}


def naming(word: str) -> set[str]:
    """The runs of the smoke profile that say ``word`` in their parameters or code, and those that read them."""
    runs = load_profile("smoke").runs
    found = {r.name for r in runs if f'"{word}"' in json.dumps(r.parameters) + "".join(code_cells(r.notebook))}
    for run in runs:
        found |= {run.name} if found & set(run.needs) else set()
    return found


# --- What changes nothing ---------------------------------------------------------------------------------------


def test_a_copy_elsewhere_is_the_same(before, copy):
    assert copy.fingerprints() == before


def test_comments_and_formatting_change_nothing(before, copy):
    copy.rewrite(lambda tree: tree)

    def reformatted(cells):
        for cell in cells:
            if cell["cell_type"] == "code":
                cell["source"] = ast.unparse(ast.parse("".join(cell["source"]))) + "\n# A comment."
        return cells

    for path in copy.notebooks.glob("*.ipynb"):
        copy.edit(path.stem, reformatted)
    assert copy.fingerprints() == before


def test_docstrings_and_annotations_change_nothing(before, copy):
    copy.rewrite(WithoutTexts().visit)
    assert '"""' not in (copy.package / "study.py").read_text() and "->" not in (copy.package / "study.py").read_text()
    assert copy.fingerprints() == before


def test_a_file_can_be_renamed(before, copy):
    (copy.package / "gradients" / "loss.py").rename(copy.package / "gradients" / "mean_loss.py")
    changed = 0
    for path in copy.package.rglob("*.py"):
        text = path.read_text()
        renamed = text.replace("gradients.loss import", "gradients.mean_loss import")
        renamed = renamed.replace("from .loss import", "from .mean_loss import")
        changed += renamed != text
        path.write_text(renamed)
    assert changed >= 2
    assert copy.fingerprints() == before


def test_a_function_can_be_moved(before, copy):
    path = copy.package / "pruners" / "taylor.py"
    tree = ast.parse(path.read_text())
    (moved,) = [node for node in tree.body if getattr(node, "name", "") == "gradients_of"]
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    tree.body.remove(moved)
    tree.body.insert(1, ast.parse("from .first_order import gradients_of").body[0])
    path.write_text(ast.unparse(tree))
    (path.parent / "first_order.py").write_text(ast.unparse(ast.Module([*imports, moved], [])))
    assert copy.fingerprints() == before


def test_prose_changes_nothing(before, copy):
    def retold(cells):
        new = {"cell_type": "markdown", "metadata": {}, "source": ["More.\n"]}
        told = [cell | {"source": ["Other words."]} if cell["cell_type"] == "markdown" else cell for cell in cells]
        return [new, *told, new]

    for path in copy.notebooks.glob("*.ipynb"):
        copy.edit(path.stem, retold)
    assert copy.fingerprints() == before


def test_a_new_pruner_changes_nothing_and_empties_no_cache(before, copy, monkeypatch):
    def step_keys() -> dict[str, str]:
        """The keys of cached scores, a pruner each."""
        library = Library(copy.root)
        monkeypatch.setattr(cache, "library", lambda: library)
        steps = {name: ((pruner.function,), {"pruner": name}) for name, pruner in PRUNERS.items()}
        return {name: cache.Step("scores", code, settings=known).key for name, (code, known) in steps.items()}

    keys = step_keys()
    (copy.package / "pruners" / "newest.py").write_text(
        "from ..registry import Look\nfrom .registry import PRUNERS\nFACTOR = 2\n\n\n"
        '@PRUNERS.register("newest", look=Look("newest", "#000000", "o"), near_taylor=True)\n'
        "def newest(model, batches, units, *, seed=0, factor=FACTOR):\n    raise NotImplementedError\n"
    )
    path = copy.package / "pruners" / "__init__.py"
    path.write_text(path.read_text().replace("# isort: on", "from . import newest  # noqa: F401\n# isort: on"))
    assert ("mpstudy.pruners.newest", "newest") in chosen(copy, "newest") and copy.fingerprints() == before
    assert step_keys() == keys
    copy.replace("pruners/moreau.py", "div_(-prox.rho)", "div_(prox.rho)")
    now = step_keys()
    assert {name for name in keys if now[name] != keys[name]} == {"moreau", "moreau-gs"}


def chosen(copy: Copy, pruner: str):
    """What a run with the parameter ``pruners: [pruner]`` reaches."""
    run = Run("x", copy.notebooks / "20_moreau_pruning.ipynb", {"pruners": [pruner]})
    return reach(run, Library(copy.root))[1].forms


def test_a_row_of_published_numbers_changes_nothing(before, copy, monkeypatch, tmp_path):
    shutil.copytree(DATA, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setattr(content, "DATA", tmp_path / "data")
    with (tmp_path / "data" / "published.csv").open("a") as file:
        file.write("a,new,row\n")
    assert copy.fingerprints() == before
    with next((tmp_path / "data" / "facts").glob("*.csv")).open("a") as file:
        file.write("a,new,fact\n")
    assert stale(before, copy.fingerprints()) == {*RECOVERING, SUMMARY}


def test_a_new_input_changes_nothing_and_another_text_does(before, copy, monkeypatch, tmp_path):
    known = json.loads(manifest.MANIFEST.read_text())
    new = json.loads(json.dumps(known["packages"][-1]))
    new["files"] = [new["files"][0] | {"name": "newest-corpus"}]
    changed = tmp_path / "MANIFEST"
    changed.write_text(json.dumps(known | {"packages": [*known["packages"], new]}))
    monkeypatch.setattr(manifest, "MANIFEST", changed)
    assert copy.fingerprints() == before
    sha = manifest.entries()["sotu"].sha256
    changed.write_text(changed.read_text().replace(sha, sha[::-1]))
    assert stale(before, copy.fingerprints()) == RUNS


def test_the_parts_of_an_optional_model_are_inputs_of_the_runs_that_name_it_alone():
    (run,) = load_profile("gemma").runs
    for name, parts in (("gemma3-270m", 4), ("smollm2-135m-instruct", 0)):
        known = identity(dataclasses.replace(run, parameters=run.parameters | {"model": name}), 2, {})
        assert len([key for key in known["inputs"] if key.startswith("input gemma3")]) == parts
        assert known["inputs"][f"model {name}"].startswith(f"{name}@")


# --- What changes something: code -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file, old, new, word",
    [
        ("pruners/taylor.py", 'meta = {"pruner": "taylor",', 'meta = {"pruner": "taylor", "x": 1,', "taylor"),
        ("pruners/moreau_release.py", "lr: float = 2e-4", "lr: float = 3e-4", "moreau-release"),
        ("sparse/wanda.py", "gram", "2 * gram", "wanda"),
        ("pruners/taylor.py", "0.5 * fisher", "0.6 * fisher", "taylor-mix"),
    ],
)
def test_a_changed_constant_makes_stale_what_reaches_it(before, copy, file, old, new, word):
    if old == "gram":  # the body of Wanda, whose words are its own
        path = copy.package / file
        head, body = path.read_text().rsplit("return", 1)
        path.write_text(f"{head}LIMIT = 1\n    return{body}")
    else:
        copy.replace(file, old, new)
    assert stale(before, copy.fingerprints()) == naming(word)


def test_a_changed_constant_of_taylor_mix_makes_stale_just_the_run_that_uses_it(copy):
    profile = copy.profile()
    runs = [r for r in profile.runs if r.name != "25_baselines"]
    (baselines,) = [r for r in profile.runs if r.name == "25_baselines"]
    mixed = dataclasses.replace(baselines, parameters=baselines.parameters | {"pruners": ["taylor", "taylor-mix"]})
    profile = dataclasses.replace(profile, runs=(*runs[:-1], mixed, runs[-1]))
    known = copy.fingerprints(profile)
    copy.replace("pruners/taylor.py", "0.5 * fisher", "0.6 * fisher")
    assert stale(known, copy.fingerprints(profile)) == {"25_baselines", SUMMARY}


def test_code_cells_count_and_their_order_does(before, copy):
    def swapped(cells):
        code = [index for index, cell in enumerate(cells) if cell["cell_type"] == "code"]
        cells[code[-1]], cells[code[-2]] = cells[code[-2]], cells[code[-1]]
        return cells

    copy.edit("15_moreau_envelope", swapped)
    readers = {run.name for run in copy.profile().runs if "15_moreau_envelope" in run.needs}
    assert stale(before, copy.fingerprints()) == {"15_moreau_envelope"} | readers


def test_the_runner_itself_is_in_no_fingerprint(tmp_path):
    study = TinyStudy(tmp_path)
    path = study.notebook("write", "seeds = [0]", "run.table('t', [{'x': 1}])")
    _, found = reach(Run("write", path, {"seeds": [0]}), Library())
    files = {module for module, _ in found.forms}
    assert "mpstudy.record" in files
    assert files <= {f"mpstudy.{name}" for name in ("record", "memory", "errors", "store.paths", "store.files")}


# --- What changes something: parameters and inputs --------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """A notebook on a small library, and its identity with some parameters."""
    study = TinyStudy(tmp_path)
    package(
        tmp_path / "small",
        {"a.py": "from .b import limit\ndef f(x): return x + limit\n", "b.py": "limit = 1\n", "c.py": "x = 1\n"},
    )
    library_root = tmp_path / "small"
    path = study.notebooks / "n.ipynb"

    def write(*code: str) -> None:
        cells = [("code", "x = 1", ["parameters"]), *[("code", source, []) for source in code]]
        content = [{"cell_type": kind, "source": text, "metadata": {"tags": tags}} for kind, text, tags in cells]
        path.write_text(json.dumps({"cells": content}))

    def now(threads=1, needs=None, **parameters) -> dict:
        return identity(Run("n", path, {"x": 1} | parameters), threads, needs or {}, Library(library_root))

    write("from mpstudy import a", "a.f(x)")
    now.write, now.package = write, library_root / "mpstudy"
    return now


def test_an_identity_changes_with_what_matters_and_only_with_that(tiny):
    first = tiny()
    (tiny.package / "c.py").write_text("x = 2\n")
    assert tiny() == first
    known = [first, tiny(x=2), tiny(x=1.0), tiny(x=True), tiny(threads=2), tiny(needs={"m": "1"}), tiny(y=None)]
    (tiny.package / "b.py").write_text("limit = 2\n")
    known.append(tiny())
    (tiny.package / "a.py").write_text("from .b import limit\ndef f(x): return x - limit\n")
    known.append(tiny())
    tiny.write("from mpstudy import a", "a.f(x + 1)")
    known.append(tiny())
    tiny.write("from mpstudy import a\na.f(x + 1)")
    known.append(tiny())
    assert len({fingerprint(each) for each in known}) == len(known)


@pytest.mark.parametrize(
    "first, second",
    [
        ("%matplotlib inline\nx = 1", "%matplotlib widget\nx = 1"),
        ("!prune --ratio 0.1", "!prune --ratio 0.2"),
        ("for y in z:\n    !prune {y}", "for y in z:\n    !prune {x}"),
        ("x = (7\n% 4)", "x = (7\n% 5)"),
        ("%%time\nx = 1", "%%time\nx = 2"),
    ],
)
def test_lines_of_ipython_count(tiny, first, second):
    tiny.write(first)
    known = tiny()
    tiny.write(second)
    assert tiny()["cells"] != known["cells"]


def test_the_reference_models_count_by_content_wherever_they_lie(tiny, tmp_path):
    def folder(where: str, text: str) -> str:
        path = tmp_path / where / "reference"
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"model_type": text}))
        return str(path)

    here, there, other = folder("here", "llama"), folder("there", "llama"), folder("other", "opt")
    assert tiny(references=[here]) == tiny(references=[there])
    assert str(tmp_path) not in json.dumps(tiny(references=[here], model=here, more={"path": [here]}))
    found = [tiny(references=each) for each in ([], [here], [other], [here, other], [other, here], [here, there])]
    assert len({fingerprint(each) for each in found}) == len(found)
    assert tiny(model=here)["inputs"] != tiny(model=other)["inputs"]


def test_copies_of_the_hubs_corpora_count_where_they_are_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MPSTUDY_HUB_DIR", str(tmp_path / "hub"))
    text = tmp_path / "hub" / "wikitext2" / "test.txt"
    text.parent.mkdir(parents=True)
    text.write_text("one")
    named = [{"corpora": ["wikitext2"]}, {"changes": ["corpus-wikitext2"]}, {"tasks": {"wikitext2": 1}}]
    known, apart = [tiny(**each) for each in named], tiny(corpora=["wiki"])
    text.write_text("two")
    assert all(tiny(**each)["inputs"] != old["inputs"] for each, old in zip(named, known, strict=True))
    assert tiny(corpora=["wiki"]) == apart
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "hub", tmp_path / "moved" / "hub")
    known = tiny(corpora=["wikitext2"])
    monkeypatch.setenv("MPSTUDY_HUB_DIR", str(tmp_path / "moved" / "hub"))
    assert tiny(corpora=["wikitext2"]) != known  # nothing lay in the old place


def test_files_in_the_hubs_cache_count_by_content(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("MPSTUDY_HUB_DIR", raising=False)
    file = tmp_path / "validation.parquet"
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *where, **more: str(file) if file.is_file() else None
    )
    absent = tiny(tasks=["boolq"])["inputs"]
    assert absent == {"hub boolq": "aps/super_glue@refs/convert/parquet"}
    file.write_bytes(b"one")
    first = tiny(tasks=["boolq"])["inputs"]
    file.write_bytes(b"two")
    assert len({str(each) for each in (absent, first, tiny(tasks=["boolq"])["inputs"])}) == 3


def test_data_of_the_hub_that_are_not_at_hand_are_taken_for_what_they_were(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MPSTUDY_HUB_DIR", str(tmp_path))
    text = tmp_path / "wikitext2" / "test.txt"
    text.parent.mkdir()
    text.write_text("one")
    known = tiny(corpora=["wikitext2"])
    text.write_text("two")
    assert differences(known, tiny(corpora=["wikitext2"])) == ["input: hub wikitext2 changed"]
    monkeypatch.delenv("MPSTUDY_HUB_DIR")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *where, **more: None)
    absent = tiny(corpora=["wikitext2"])
    assert absent["inputs"] != known["inputs"] and differences(known, absent) == []
    assert "input: hub wikitext2 is gone" in differences(known, tiny(corpora=["wiki"]))
    assert "input: hub wikitext2 is new" in differences(tiny(corpora=["wiki"]), absent)


# --- What changes something: packages and devices ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name, runs",
    [
        ("torch", RUNS),
        ("numpy", RUNS),
        ("scipy", RUNS),
        ("transformers", RUNS - {SUMMARY}),
        ("tokenizers", RUNS - {SUMMARY}),
        ("datasets", RECOVERING),  # by lm-eval; the texts of the others are bundled
        ("peft", RECOVERING),
        ("accelerate", RECOVERING),
        ("lm_eval", RECOVERING),
        ("matplotlib", set()),
        ("seaborn", set()),
    ],
)
def test_versions_of_packages_are_known_where_they_are_reached(known, name, runs):
    assert {run for run, identity in known.items() if name in identity["versions"]} == runs


def test_a_version_counts_and_a_build_for_a_device_does_not(tiny, monkeypatch):
    tiny.write("import torch\nfrom matplotlib import pyplot\ntorch.zeros(1), pyplot")
    monkeypatch.setattr(versions, "version", lambda name: "1.0")
    first = tiny()
    monkeypatch.setattr(versions, "version", lambda name: "1.0+cu130")
    assert tiny() == first and first["versions"] == {"torch": "1.0"}
    monkeypatch.setattr(versions, "version", lambda name: "1.1")
    assert fingerprint(tiny()) != fingerprint(first)


def test_the_device_counts(tiny, monkeypatch):
    first = tiny()
    monkeypatch.setattr(fingerprints, "device", lambda: "Some GPU")
    assert fingerprint(tiny()) != fingerprint(first)


def test_the_instructions_of_mkl_count_where_they_are_not_the_usual_ones(tiny, monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    first = tiny()
    monkeypatch.setenv("MKL_CBWR", machine.SAME_BITS["MKL_CBWR"])
    assert tiny() == first and "instructions" not in first
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    other = tiny()
    assert fingerprint(other) != fingerprint(first)
    assert differences(other, first) == ["instructions: MKL_CBWR COMPATIBLE is now AVX2,STRICT"]
    assert differences(other, other) == []


# --- What is said of a difference -------------------------------------------------------------------------------


def test_differences_are_named(tiny, monkeypatch, tmp_path):
    known = tiny(y="a", needs={"m": "1" * 64})
    assert differences(known, tiny(y="a", needs={"m": "1" * 64})) == []
    assert differences(known, tiny(y="b", z=2, threads=2, needs={"m": "2" * 64})) == [
        "parameter: y a is now b",
        "parameter: z is new",
        "reads: m changed",
        "threads: 1 is now 2",
    ]
    (tiny.package / "b.py").write_text("limit = 2\n")
    assert differences(tiny(), known | {"parameters": {"x": 1}, "needs": {}}) == ["definition: limit changed"]
    monkeypatch.setattr(fingerprints, "versions_of", lambda packages: {"torch": "99"})
    monkeypatch.setattr(fingerprints, "contents", lambda *names: {"input wiki": "0" * 64})
    monkeypatch.setattr(fingerprints, "device", lambda: "Some GPU")
    tiny.write("from mpstudy import a", "a.f(x) + 1")
    assert differences(known | {"parameters": {"x": 1}, "needs": {}, "versions": {"torch": "98"}}, tiny()) == [
        "definition: limit changed",
        "input: input wiki is new",
        "version: torch 98 is now 99",
        "device: cpu is now Some GPU",
        "notebook: code cell 1 changed",
    ]
    tiny.write("a = 1")
    assert "notebook: 1 code cells instead of 2" in differences(known, tiny())


def test_a_swapped_definition_is_named(tmp_path):
    study = TinyStudy(tmp_path)
    files = {"b.py": "def g():\n    return 1\n", "c.py": "def g():\n    return 2\n"}
    path = study.notebook(
        "n", "x = 1", "from mpstudy.b import g as first\nfrom mpstudy.c import g as second\nfirst, second"
    )
    first = identity(Run("n", path, {}), 1, {}, recorded(tmp_path / "1", files))
    swapped = {"b.py": files["c.py"], "c.py": files["b.py"]}
    now = identity(Run("n", path, {}), 1, {}, recorded(tmp_path / "2", swapped))
    assert differences(first, now) == ["definition: a name means another definition of the same name"]


def recorded(root, files: dict[str, str]) -> Library:
    return package(root, files | {"record.py": "def start(): ...\n"})
