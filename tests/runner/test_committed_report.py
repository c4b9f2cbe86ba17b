"""The committed reports belong to the committed code, are whole, and stay small."""

import json
import re

import pandas as pd
import pytest

from mpstudy.runner.compare import compare
from mpstudy.runner.profiles import load_profile
from mpstudy.runner.status import status
from mpstudy.store.paths import REPORTS, ROOT

COMMITTED = ("laptop", "full", "gemma", "published")
HOME = REPORTS / "laptop"
PROFILE = load_profile("laptop")


def results_of(name):
    runs = [spec.name for spec in load_profile(name).runs]
    return {run: json.loads((REPORTS / name / "results" / f"{run}.json").read_text()) for run in runs}


RESULTS = results_of("laptop")


@pytest.mark.parametrize("name", COMMITTED)
def test_every_run_is_current(name):
    assert [row for row in status(load_profile(name), REPORTS / name) if row["state"] != "current"] == []


def test_adopted_results_say_what_was_checked_in_the_file_and_on_the_page():
    page = (HOME / "index.html").read_text()
    adopted = [(name, entry) for name, result in RESULTS.items() for entry in result.get("adopted", [])]
    assert page.count(" numbers of a part, computed again") == len(adopted), "of none the page says nothing"
    for name, entry in adopted:
        assert entry["fingerprint"] != RESULTS[name]["fingerprint"] and entry["checked"]["numbers"] > 0
        assert entry["computed_under"][:12] in page and f"{name}: {entry['checked']['numbers']} numbers" in page


@pytest.mark.parametrize("name", COMMITTED)
def test_results_come_from_a_clean_tree_on_a_cpu(name):
    for result in results_of(name).values():
        assert result["provenance"]["git"]["dirty"] is False and not result["provenance"].get("gpu")


def test_bounds_of_the_profile_hold():
    assert sum(spec.minutes for spec in PROFILE.runs) <= 75
    assert sum(result["provenance"]["wall_seconds"] for result in RESULTS.values()) <= 75 * 60
    assert all(result["provenance"]["peak_memory_gb"] < 6 for result in RESULTS.values())
    assert all(len(result["seeds"]) >= 3 for result in RESULTS.values() if result["seeds"])


def test_what_the_readme_calls_a_share_is_what_was_removed():
    rows = {row["share"]: row for row in RESULTS["10_perturbation_instability"]["tables"]["removed"]["rows"]}
    found = rows[0.2]
    assert found["heads_removed"] == pytest.approx(2 / 9) and found["channels_removed"] == pytest.approx(290 / 1536)
    said = "20 % are two heads of nine and 290 of 1536 channels in each, 11.9 % of the model"
    assert said in " ".join((ROOT / "README.md").read_text().split()) and round(100 * found["removed_model"], 1) == 11.9


@pytest.mark.parametrize("name", COMMITTED)
def test_every_file_is_there_and_the_whole_is_small(name):
    home = REPORTS / name
    for result in results_of(name).values():
        assert all((home / file).is_file() for file in result["files"])
    beside = {"work", "checkpoints"}  # not committed
    kept = [file for file in home.rglob("*") if file.is_file() and not beside & set(file.relative_to(home).parts)]
    assert 0 < sum(file.stat().st_size for file in kept) < (30e6 if name == "full" else 25e6)


def test_the_settings_in_use_are_what_the_limits_say():
    """Moreau's radius is the best of those tried; all others are best at the edge of their grid, and not in use."""
    tables = (results_of("full")[run]["tables"]["settings"]["rows"] for run in ("20_other_shares", "30_pruners"))
    rows = pd.concat(map(pd.DataFrame, tables))
    rows["setting"] = rows["setting"].fillna(rows["name"])
    for name, tried in rows.groupby("setting"):
        loss, (used,) = tried.groupby("value")["nll"].mean(), tried.loc[tried["used"], "value"].unique()
        if name == "rho":
            assert loss.idxmin() == used and loss.index.min() < used < loss.index.max()
        else:
            assert loss.idxmin() in (loss.index.min(), loss.index.max()) and loss.idxmin() != used
    assert set(rows["setting"]) == {"rho", "tol", "eta", "sigma", "lr"}


@pytest.mark.parametrize("page", ["index.html", *(f"{name}/index.html" for name in COMMITTED)])
def test_links_of_the_index_exist(page):
    links = re.findall(r'(?:href|src)="([^"#:]+)"', (REPORTS / page).read_text())
    assert links and [link for link in links if not ((REPORTS / page).parent / link).exists()] == []


@pytest.mark.parametrize("name", COMMITTED)
def test_every_cell_can_be_compared(name):
    tolerances, results = load_profile(name).tolerances, results_of(name).values()
    tolerances.check_names(results)
    for result in results:
        assert {cell.status for cell in compare(result, result, tolerances)} <= {"equal", "timing", "sentence"}


def test_the_tolerances_tell_another_perplexity_from_another_processor():
    """Two processors with other kernels were 1e-5 of the value apart; methods that are told apart, a per cent."""
    old = RESULTS["20_moreau_pruning"]
    for factor, expected in ((1 + 1e-5, "within"), (1.01, "outside")):
        rows = [row | {"perplexity": row["perplexity"] * factor} for row in old["tables"]["perplexity"]["rows"]]
        new = old | {"tables": old["tables"] | {"perplexity": {"rows": rows}}}
        cells = [c for c in compare(old, new, PROFILE.tolerances) if (c.table, c.column) == ("perplexity",) * 2]
        assert len(cells) == len(rows) and {cell.status for cell in cells} == {expected}
