"""The package as its wheel brings it: in an empty folder, with the core's dependencies or with all of them."""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from helpers.tiny import tiny_folder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mpstudy import __main__
from mpstudy.cli import runner
from mpstudy.errors import StudyError
from mpstudy.store import paths
from mpstudy.store.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 20


def test_every_folder_of_the_library_is_packed():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "mpstudy").rglob("__init__.py")}
    packed = set(PROJECT["tool"]["setuptools"]["packages"]) - {"mpstudy.data"}
    assert packed == {".".join(folder.parts) for folder in folders}


def test_help_is_quick_and_brings_no_heavy_library():
    code = (
        "import sys, time; from mpstudy.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'yaml'} & set(sys.modules)\n"
        "print(sorted(heavy), time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded, seconds = done.stderr.strip().rsplit(" ", 1)
    assert "score the units of a model" in done.stdout
    assert loaded == "[]" and float(seconds) < 1


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and a text, which have to be there before a library is missed."""
    (tmp_path / "model").mkdir()
    (tmp_path / "x").write_text("a text")
    monkeypatch.chdir(tmp_path)


def test_a_missing_library_is_one_line_with_its_extra(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "mpstudy.evaluation.zeroshot", raising=False)
    monkeypatch.delattr("mpstudy.evaluation.zeroshot", raising=False)
    assert __main__.main(["evaluate", "model", "--text", "x", "--tasks", "facts"]) == 2
    assert capsys.readouterr().err == "error: lm_eval is not installed: pip install 'mpstudy[zeroshot]'\n"


def test_a_missing_library_that_no_extra_brings_is_a_defect(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpstudy.evaluation.cost", None)
    monkeypatch.delattr("mpstudy.evaluation.cost", raising=False)
    with pytest.raises(ModuleNotFoundError, match="cost"):
        __main__.main(["evaluate", "model", "--text", "x"])


def test_the_cache_lies_in_the_checkout_or_with_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("MPSTUDY_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert paths.cache_dir() == ROOT / "data" / "cache"
    monkeypatch.setattr(paths, "INSTALLED", True)
    assert paths.cache_dir() == tmp_path / ".cache" / "mpstudy"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_dir() == tmp_path / "xdg" / "mpstudy"
    monkeypatch.setenv("MPSTUDY_CACHE", "elsewhere")
    assert paths.cache_dir() == Path("elsewhere")


def test_a_user_without_a_home_is_told_in_one_line(monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MPSTUDY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(paths, "INSTALLED", True)
    monkeypatch.setattr(paths.Path, "home", homeless)
    with pytest.raises(StudyError, match="no home folder: name a folder in HOME"):
        paths.cache_dir()
    assert __main__.main(["reproduce", "--profile", "smoke"]) == 2
    assert capsys.readouterr().err == "error: this user has no home folder: name a folder in HOME\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel; a cache stands beside the data, as in any checkout that is used."""
    source = tmp_path_factory.mktemp("build") / "source"
    for name in ("mpstudy", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("cache", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "data" / "cache").mkdir()
    (source / "data" / "cache" / "large").write_text("x")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", source.parent, source], check=True, capture_output=True)
    return next(source.parent.glob("*.whl"))


def needed(names, kept=frozenset()) -> set[str]:
    """The distributions ``names`` and all that they need, as this environment has them."""
    found = set(kept)
    for name in {canonicalize_name(name) for name in names} - found:
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # on this platform not needed
            continue
        wanted = [Requirement(line) for line in lines]
        found |= {name}
        found |= needed([w.name for w in wanted if not w.marker or w.marker.evaluate({"extra": ""})], found)
    return found


class Installed:
    """The wheel in an environment of its own, which sees the distributions ``names`` and what they need."""

    def __init__(self, folder: Path, wheel: Path, names):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        python = folder / "venv" / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, wheel], check=True, capture_output=True)
        site = next((folder / "venv").glob("lib/python*/site-packages"))
        for name in needed(names):
            distribution = importlib.metadata.distribution(name)
            for top in {
                file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")
            }:
                if not (site / top).exists():
                    (site / top).symlink_to(distribution.locate_file(top))
        self.command = folder / "venv" / "bin" / "mpstudy"
        self.site, self.folder = site, folder / "empty"
        self.folder.mkdir()

    def run(self, words: str, **environment) -> subprocess.CompletedProcess:
        """Run one command line in the empty folder, with a cache in it and no way to this checkout."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MPSTUDY_CACHE")}
        ours = {"XDG_CACHE_HOME": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [self.command, *words.split()]
        return subprocess.run(
            command, cwd=self.folder, env=kept | ours | environment, capture_output=True, text=True, timeout=300
        )

    def works(self, words: str, **environment) -> str:
        done = self.run(words, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory) -> Installed:
    """Installed with the core's dependencies only."""
    names = [Requirement(line).name for line in PROJECT["project"]["dependencies"]]
    return prepared(Installed(tmp_path_factory.mktemp("core"), wheel, names))


@pytest.fixture(scope="module")
def whole(wheel, tmp_path_factory) -> Installed:
    """Installed with the extras of the commands on models and texts."""
    project = PROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for e in ("recover", "zeroshot") for line in project["optional-dependencies"][e]),
    ]
    return prepared(Installed(tmp_path_factory.mktemp("whole"), wheel, [Requirement(line).name for line in lines]))


def prepared(installed: Installed) -> Installed:
    """A model, a text, and in the user's cache what ``mpstudy data`` has fetched before."""
    tiny_folder(installed.folder / "model")
    (installed.folder / "book.txt").write_text(TEXT)
    cache = installed.folder / "cache" / "mpstudy"
    cache.mkdir(parents=True)
    for name in ("inputs", "models"):
        (cache / name).symlink_to((paths.cache_dir() / name).resolve())
    return installed


@pytest.mark.slow
def test_the_wheel_holds_the_data_and_no_cache(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if "/data/" in name]
    beside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "data").rglob("*") if path.is_file()}
    assert {f"mpstudy/{name}" for name in beside if "/cache/" not in name} == set(names)
    assert {"mpstudy/py.typed", "mpstudy/runner/templates/style.css"} <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_the_core_scores_prunes_sparsifies_and_evaluates(core):
    assert core.works("data").startswith("model: ") and core.works("--version") == f"{PROJECT['project']['version']}\n"
    calibration = "--corpus sotu-early --samples 2 --length 16 --layers 0-1"
    assert "scored by taylor" in core.works(f"score model --pruner taylor {calibration} --out s.safetensors")
    assert "parameters kept" in core.works("prune model --scores s.safetensors --ratio 0.25 --out pruned")
    assert "loads it" in core.works("export pruned --out standard")
    assert "are zero" in core.works(f"sparsify model --method wanda --sparsity 0.5 {calibration} --out sparse")
    for folder in ("pruned", "standard", "sparse"):
        found = json.loads(core.works(f"evaluate {folder} --text book.txt --window 16 --json"))
        assert found["perplexity"] > 1
    left = {path.name for path in core.folder.iterdir()}
    assert left == {"model", "book.txt", "cache", "s.safetensors", "pruned", "standard", "sparse"}
    assert not list(core.site.rglob("mpstudy/data/cache")) and not (core.site / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, missing",
    [
        ("evaluate model --text book.txt --tasks facts", "lm_eval is not installed: pip install 'mpstudy[zeroshot]'"),
        (
            "recover model --rows 4 --validation 2 --warmup-steps 0 --out r",
            "accelerate is not installed: pip install 'mpstudy[recover]'",
        ),
    ],
)
def test_the_core_names_the_extra_that_a_command_needs(core, words, missing):
    done = core.run(words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {missing}\n")


@pytest.mark.slow
def test_what_needs_a_checkout_says_so_in_one_line(core):
    commands = argparse.ArgumentParser().add_subparsers()
    runner.add_commands(commands)
    for name in commands.choices.keys() - {"data"}:
        done = core.run("run 20_moreau_pruning" if name == "run" else name)
        assert done.returncode == 2
        assert (
            done.stderr.startswith(f"error: {name} needs a checkout of the repository") and done.stderr.count("\n") == 1
        )


@pytest.mark.slow
def test_with_its_extras_the_wheel_recovers_and_answers_tasks(whole):
    words = "--rows 4 --validation 2 --epochs 1 --batch-size 2 --cutoff 1024 --warmup-steps 0 --out recovered"
    assert "recovered, validation loss" in whole.works(f"recover model {words}")
    found = json.loads(whole.works("evaluate recovered --text book.txt --window 16 --tasks agreement --limit 4 --json"))
    assert [(row["task"], row["n_items"]) for row in found["zero_shot"]] == [("agreement", 4)]
