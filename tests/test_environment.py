"""The environment is what the lock says, notebooks are clean sources, and `make` keeps its word."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mpstudy
from mpstudy.__main__ import EXTRAS
from mpstudy.store.paths import NOTEBOOKS, ROOT

PYPROJECT_TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT_TEXT)["project"]
GROUPS = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
DIRECT = [Requirement(line) for lines in GROUPS.values() for line in lines]
LOCK_LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCK = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LOCK_LINES}
CUDA_LIBRARIES = ("nvidia-", "cuda-", "triton")  # torch pins these itself where it needs them
TARGETS = "setup data reproduce report smoke test test-fast lint lab html clean".split()
FROM_AN_OUTER_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PROFILE", "SEEDS", "JOBS", "PYTHON"}


def conda_environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_lock_lines_are_exact_pins_of_different_packages():
    odd = [line for line in LOCK_LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)]
    assert odd == []
    assert len(LOCK) == len(LOCK_LINES)


def test_conda_gets_the_pins_of_the_lock():
    *conda, pip = conda_environment()["dependencies"]
    editable, *pins = pip["pip"]
    assert editable == "-e ."
    assert pins == LOCK_LINES
    assert conda == ["python=3.11", "pip"]
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_direct_dependency_is_met_by_the_lock(requirement):
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("group", GROUPS)
def test_each_direct_dependency_says_what_it_is_for(group):
    block = re.search(rf"^{group} = \[[^\n]*\n(.*?)^\]", PYPROJECT_TEXT, re.MULTILINE | re.DOTALL).group(1)
    lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
    assert len(lines) == len(GROUPS[group]) > 0
    assert [line for line in lines if not re.fullmatch(r' +"[^"]+", +# \w.{5,}', line)] == []


def test_make_lock_takes_every_extra():
    extras = re.search(r'-e "\.\[(.*?)\]"', (ROOT / "Makefile").read_text()).group(1)
    assert extras.split(",") == list(PROJECT["optional-dependencies"])


def test_a_missing_module_is_looked_up_in_the_extra_that_brings_it():
    distributions = importlib.metadata.packages_distributions()
    brought = {
        extra: {canonicalize_name(distributions[module][0]) for module in modules} for extra, modules in EXTRAS.items()
    }
    declared = {extra: {canonicalize_name(Requirement(line).name) for line in GROUPS[extra]} for extra in EXTRAS}
    core = {canonicalize_name(Requirement(line).name) for line in GROUPS["dependencies"]}
    assert brought["recover"] == declared["recover"]
    assert brought["notebooks"] == declared["notebooks"]
    assert brought["zeroshot"] == declared["zeroshot"] - declared["notebooks"]  # pyyaml comes with either
    assert not core & set().union(*declared.values())


def test_installed_versions_are_those_of_the_lock():
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in LOCK}  # torch: 2.x+cpu
    assert installed == LOCK


def test_lock_holds_everything_its_packages_need():
    missing = set()
    for name in LOCK:
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            wanted = canonicalize_name(requirement.name)
            if needed and wanted not in LOCK and not wanted.startswith(CUDA_LIBRARIES):
                missing.add(f"{name} needs {wanted}")
    assert missing == set()


def imported_modules(source: str) -> set[str]:
    """Top-level names that a piece of Python imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def notebook_cells(path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def notebook_code(path) -> str:
    """The code cells of a notebook without the lines that only IPython understands."""
    lines = "\n".join("".join(c["source"]) for c in notebook_cells(path) if c["cell_type"] == "code")
    return "\n".join(line for line in lines.splitlines() if not line.startswith(("%", "!")))


def test_every_import_is_a_direct_dependency():
    modules = {
        path: path.read_text(encoding="utf-8")
        for top in ("mpstudy", "benchmarks", "tests")
        for path in (ROOT / top).rglob("*.py")
    }
    sources = modules | {path: notebook_code(path) for path in NOTEBOOKS.glob("*.ipynb")}
    ours = {"mpstudy", "benchmarks", "helpers", "test_loop"}
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path, source in sources.items()
        for module in imported_modules(source) - sys.stdlib_module_names - ours
        if not declared.intersection(map(canonicalize_name, distributions.get(module, [])))
    }
    assert undeclared == set()


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
    assert [PROJECT["version"], str(citation["version"]), newest] == [mpstudy.__version__] * 3


def test_notebooks_are_sources_with_a_parameters_cell():
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        code = [cell for cell in notebook_cells(path) if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), path.name
        tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1, path.name


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that the environment is made from, and nothing else."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *arguments) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in FROM_AN_OUTER_MAKE}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_help_is_the_default_and_lists_every_target(checkout):
    shown = make(checkout).stdout
    assert shown == make(checkout, "help").stdout
    listed = re.findall(r"^  ([a-z-]+) ", shown, re.MULTILINE)
    assert set(listed) >= set(TARGETS)


def test_variables_reach_the_runner(checkout):
    planned = make(checkout, "-n", "reproduce", "PROFILE=gpu", "SEEDS=3", "JOBS=2").stdout.splitlines()
    assert planned[-1] == ".venv/bin/python -m mpstudy reproduce --profile gpu --seeds 3 --jobs 2"


def test_defaults_are_the_laptop_profile_with_its_own_seeds(checkout):
    planned = make(checkout, "-n", "reproduce").stdout.splitlines()
    assert " ".join(planned[-1].split()) == ".venv/bin/python -m mpstudy reproduce --profile laptop"


def test_smoke_has_no_report_to_compare_with(checkout):
    planned = make(checkout, "-n", "smoke").stdout.splitlines()
    assert " ".join(planned[-1].split()) == ".venv/bin/python -m mpstudy report --profile smoke"


@pytest.mark.parametrize("version, found", [("3.9.2", "is 3.9.2."), (None, "is not a working command.")])
def test_an_unfit_python_is_named_and_makes_nothing(checkout, version, found):
    python = checkout / "some-python"
    if version:
        python.write_text(f"#!/bin/sh\necho {version}; exit 1\n")
        python.chmod(0o755)
    result = make(checkout, "setup", "PYTHON=./some-python")
    assert result.returncode != 0
    assert f"Python 3.11 or newer is needed, but ./some-python {found}" in result.stderr
    assert not (checkout / ".venv").exists()


def test_clean_spares_committed_reports_and_inputs(checkout):
    spared = ["reports/laptop/results/a.json", "reports/gpu/index.html", "data/MANIFEST", "mpstudy/units.py"]
    removed = ["data/cache/a", "reports/smoke/a", "reports/laptop/checkpoints/a", "mpstudy/__pycache__/a"]
    for name in spared + removed:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x")
    (checkout / "tests").mkdir()
    shown = make(checkout, "clean").stdout
    assert "removing reports/smoke" in shown
    assert [name for name in spared + removed if (checkout / name).exists()] == spared
