"""The examples of the README are executed as they stand."""

import os
import re
import subprocess
import sys

import pytest

from mpstudy.runner.claims import load_claims
from mpstudy.runner.findings import block, findings, quoted
from mpstudy.store.paths import REPORTS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_four_examples():
    assert len(EXAMPLES) == 4


@pytest.mark.slow
@pytest.mark.parametrize("source", EXAMPLES, ids=["model", "pruner", "perturbation", "masks"])
def test_example_runs_and_prints_finite_numbers(source, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(source, encoding="utf-8")
    environment = os.environ | {"MPSTUDY_COMPUTED": str(tmp_path / "computed"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    numbers = [float(text) for text in done.stdout.split()]
    assert numbers and all(0 < number < 1e4 for number in numbers)


def test_the_findings_are_what_the_committed_results_give():
    """Until results hold contrasts, README keeps the findings of the report before."""
    found = block(ROOT / "README.md")
    if found is None:
        assert "What the committed run found" in README
    else:
        assert found == findings(load_claims(), REPORTS / quoted(REPORTS)).markdown()


def test_links_of_the_readme_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_map_is_what_ls_shows():
    named = re.findall(r"`mpstudy/(\w+)(?:/|\.py)`", README.partition("## What is where")[2].partition("\n## ")[0])
    parts = {path for path in (ROOT / "mpstudy").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(named) == sorted(path.stem for path in parts if not path.stem.startswith("__"))
