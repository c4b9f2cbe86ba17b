"""The examples of the README are executed as they stand."""

import os
import re
import subprocess
import sys

import pytest

from mpstudy.runner.claims import load_claims
from mpstudy.runner.findings import block, of_readme
from mpstudy.runner.profiles import load_profile
from mpstudy.store.paths import REPORTS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
PRINTED = {  # on two numbers of threads and two sets of instructions within 3e-6 of the value
    "model": [0.063944, 35.9691],  # residual, perplexity
    "pruner": [31.7144],
    "perturbation": [0.897331],
    # two means with their intervals, the index by chance (0.2^2 / (2 * 0.2 - 0.2^2) = 1 / 9), effect, p = 2 / 2^8
    "masks": [0.891096, 0.884233, 0.896898, 0.586602, 0.580504, 0.591195, 0.111102, 25.46894, 2 / 2**8],
}


@pytest.mark.slow
@pytest.mark.parametrize("source, printed", list(zip(EXAMPLES, PRINTED.values(), strict=True)), ids=PRINTED)
def test_example_runs_and_prints_its_numbers(source, printed, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(source, encoding="utf-8")
    environment = os.environ | {"MPSTUDY_COMPUTED": str(tmp_path / "computed"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [float(text) for text in done.stdout.split()] == pytest.approx(printed, rel=0.01)


def test_the_findings_are_what_the_committed_results_give():
    """Until results hold contrasts, README keeps the findings of the report before."""
    found = block(ROOT / "README.md")
    if found is None:
        assert "What the committed run found" in README
    else:
        assert found == of_readme(load_claims(), REPORTS).markdown()


def test_links_of_the_readme_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_map_is_what_ls_shows():
    named = re.findall(r"`mpstudy/(\w+)(?:/|\.py)`", README.partition("## What is where")[2].partition("\n## ")[0])
    parts = {path for path in (ROOT / "mpstudy").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(named) == sorted(path.stem for path in parts if not path.stem.startswith("__"))


def test_the_report_holds_the_notebooks_that_it_is_said_to_hold():
    said = README.partition("what `make reproduce` computes anew: ")[2].partition(" |")[0]
    said_names = re.findall(r"`(\w+)`", said)
    assert said_names == [run.name for run in load_profile("laptop").runs]
    assert said_names == sorted(file.stem for file in (REPORTS / "laptop" / "results").glob("*.json"))
    others = {run.name for name in ("smoke", "published") for run in load_profile(name).runs} - set(said_names)
    assert all(f"`{name}`" in README for name in others)
