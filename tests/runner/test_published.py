"""The notebook on the published protocols, whole and small: lm-eval's own tasks and the texts from made-up copies."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.hub_copy import ITEMS, write_items, write_texts
from helpers.tiny import tiny_folder

from mpstudy.runner.profiles import load_profile
from mpstudy.runner.reproduce import report
from mpstudy.store.paths import NOTEBOOKS, cache_dir

NAME = "50_published_protocols"


def test_the_profile_is_that_of_the_notebook():
    profile = load_profile("published")
    assert [run.name for run in profile.runs] == [NAME] and sum(run.minutes for run in profile.runs) <= 90
    assert set(profile.runs[0].parameters["tasks"]) == set(ITEMS)


def frames(result: dict) -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame(table["rows"]) for name, table in result["tables"].items()}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables of the notebook, run on a tiny model and on copies of a few rows."""
    home = tmp_path_factory.mktemp("published")
    write_items(home / "hub", rows=4)
    write_texts(home / "hub")
    cache = home / "cache"  # what copies become does not stay with the study's own files
    cache.mkdir()
    (cache / "inputs").symlink_to((cache_dir() / "inputs").resolve())
    profiles = home / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    shutil.copy(NOTEBOOKS / f"{NAME}.ipynb", profiles.parent)
    small = {
        "model": tiny_folder(home / "model", num_attention_heads=4, num_key_value_heads=4), "layers": "0-1",
        "samples": 2, "length": 32, "windows": 3, "long_window": 200, "long_windows": 2, "model_share": 0.2,
        "pruners": ["taylor", "moreau", "taylor2"], "task_items": 4, "recovery_rows": 4, "validation_rows": 2,
        "batch_size": 2, "warmup_steps": 0, "cutoff": 400, "seeds": [0, 1],
    }  # fmt: skip
    run = {"name": NAME, "notebook": NAME, "minutes": 1, "parameters": small}
    needs = {"description": "A test.", "threads": 1, "memory_gb": 0.1, "disk_gb": 0, "reference_seconds": 0}
    (profiles / "small.yaml").write_text(yaml.safe_dump(needs | {"runs": [run]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSTUDY_HUB_DIR", str(home / "hub"))
        patch.setenv("MPSTUDY_CACHE", str(cache))
        patch.setenv("MPSTUDY_COMPUTED", str(home / "computed"))
        assert report("small", reports=home / "reports", folder=profiles) == [NAME]
    return frames(json.loads((home / "reports" / "small" / "results" / f"{NAME}.json").read_text()))


@pytest.mark.slow
def test_the_share_is_one_of_all_parameters(tables):
    removed = tables["removed"]
    assert removed["removed_model"].nunique() == 1
    assert removed["removed_model"][0] == pytest.approx(0.2, abs=0.006)  # half a channel of each of the two layers
    assert (removed["removed"] > 1.5 * removed["removed_model"]).all()


@pytest.mark.slow
def test_every_model_is_read_and_asked(tables):
    models = {("dense", 0, None), ("taylor2", 0, 0)}
    models |= {(pruner, rows, seed) for pruner in ("taylor", "moreau") for rows, seed in ((0, 0), (0, 1), (4, 0))}
    for name, size in {"quality": 4, "accuracy": 7, "averages": 1, "windows": 10}.items():
        table = tables[name]
        known = list(zip(table["pruner"], table["rows"], [None if pd.isna(s) else int(s) for s in table["seed"]]))
        assert set(known) == models and len(known) == size * len(models)
    by_window = tables["windows"].groupby(["pruner", "rows", "seed", "corpus", "window"], dropna=False)["nll"].mean()
    found = tables["quality"].set_index(by_window.index.names)["perplexity"]
    pd.testing.assert_series_equal(found.sort_index(), np.exp(by_window).sort_index(), check_names=False)


@pytest.mark.slow
def test_the_average_is_that_of_the_tasks(tables):
    keys = ["pruner", "rows", "seed"]
    of_tasks = tables["accuracy"].groupby(keys, dropna=False)["value"].mean()
    found = tables["averages"].set_index(keys)["estimate"]
    pd.testing.assert_series_equal(found.sort_index(), 100 * of_tasks.sort_index(), check_names=False)
    assert set(tables["averages"]["chance"].round(3)) == {35.714}


@pytest.mark.slow
def test_the_contrasts_say_what_varies(tables):
    names = [f"moreau-taylor-{text}-{window}" for text in ("wikitext2", "ptb") for window in (128, 200)] + ["average"]
    names = {f"published-{name}{after}" for name in names for after in ("", "-recovered")}
    contrasts = tables["contrasts"].set_index("contrast")
    assert set(contrasts.index) == names
    assert {name: row["n"] for name, row in contrasts.iterrows()} == {n: 1 if "recovered" in n else 2 for n in names}
    changes = tables["changes"]
    assert set(zip(changes["n"], changes["covers"])) == {(1, "windows"), (2, "samples and windows")}
    losses = tables["windows"].query("corpus == 'ptb' and window == 128 and rows == 0")
    means = losses.groupby("pruner")["nll"].mean()
    expected = 100 * (means["moreau"] - means["taylor"])
    assert contrasts["estimate"]["published-moreau-taylor-ptb-128"] == pytest.approx(expected)


@pytest.mark.slow
def test_published_rows_have_ratios_to_their_own_dense_row(tables):
    beside = tables["beside_published"].set_index(["source", "model", "method", "recovery"])
    quoted = beside.loc[("LLM-Pruner results figure", "LLaMA-7B", "element1", "none")]
    assert quoted["wikitext2_ratio"] == pytest.approx(19.09 / 12.62)
    assert quoted["kept"] == pytest.approx(100 * (56.69 - 250 / 7) / (63.25 - 250 / 7))
    assert pd.isna(beside.loc[("FLAP results figure", "LLaMA-7B", "flap", "none")]["wikitext2_ratio"])
    here = beside.loc["here"].reset_index()
    assert here[here["method"] == "dense"]["ptb_ratio"].tolist() == [1.0]
    assert here["params_removed_pct"].tolist()[1:] == pytest.approx([20] * 5, abs=0.6)
