"""A chapter keeps figures and tables with captions that say what they are of."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mpstudy.errors import StudyError
from mpstudy.figures import Chapter
from mpstudy.record import Recorder
from mpstudy.store.files import write_atomically

PARAMETERS = {"model": "tiny", "layers": "1-2", "samples": 10, "length": 64, "seeds": [0, 1, 2]}


@pytest.fixture
def run(tmp_path):
    """The recorder of a notebook whose profile has two finished runs."""
    gaps = {"units": {}, "rows": [{"method": "moreau", "estimate": 1.5}]}
    contrasts = {"units": {}, "rows": [{"contrast": "a", "tokens": None}, {"contrast": "b", "tokens": 40}]}
    for name, tables in (("one", {"gaps": gaps, "contrasts": contrasts}), ("two", {"gaps": gaps})):
        parameters = {key: value for key, value in PARAMETERS.items() if name == "one" or key != "samples"}
        result = pd.Series({"notebook": f"10_{name}", "parameters": parameters, "tables": tables}).to_json()
        write_atomically(tmp_path / "reports" / "results" / f"{name}.json", result)
    work = tmp_path / "work"
    work.mkdir()
    return Recorder(run="paper", profile="small", work=work, reports=tmp_path / "reports", parameters={})


def test_captions_and_notes_say_what_they_are_of(run):
    one, two = Chapter(run, "one"), Chapter(run, "two")
    assert one.note == "small profile · tiny · n = 3 calibration samples · 40 tokens a text"
    assert two.note == "small profile · tiny · n = 3 calibration samples"
    assert one.note_of(2) == one.note.replace("n = 3", "n = 2")
    assert one.note_of(read="9 items") == one.note.replace("40 tokens a text", "9 items")
    about = "Model tiny, layers 1-2, 10 x 64 calibration tokens, n = 3 samples, small profile."
    assert one.caption("What is shown.") == f"What is shown. {about}"
    assert "calibration sizes as drawn" in two.caption("")


def test_a_folder_is_named_without_those_above_it(run, tmp_path):
    chapter = Chapter(run, "one")
    chapter.parameters["model"] = str(tmp_path)
    for text in (chapter.note, chapter.caption("")):
        assert tmp_path.name in text and str(tmp_path.parent) not in text


def test_its_tables_are_those_of_the_run(run):
    chapter = Chapter(run, "one")
    assert chapter.name == "one" and chapter.notebook == "10_one"
    assert chapter.tables == ["gaps", "contrasts"] and chapter.parameters["seeds"] == [0, 1, 2]
    assert chapter.frame("gaps").to_dict("records") == [{"method": "moreau", "estimate": 1.5}]
    with pytest.raises(StudyError, match="run 'one' has no table 'dense'"):
        chapter.frame("dense")


def test_what_is_kept_lies_in_the_folders_of_the_notebook(run):
    chapter = Chapter(run, "one")
    gaps = chapter.frame("gaps")
    assert chapter.keep_table("gaps", gaps, "Gaps.") is gaps
    chapter.keep_figure("drawn", plt.figure(), gaps, "Drawn.")
    assert {path.suffix for path in run.tables.iterdir()} == {".csv", ".md", ".tex", ".txt"}
    assert {path.suffix for path in run.figures.iterdir()} == {".csv", ".pdf", ".png", ".txt"}
    assert (run.figures / "drawn.txt").read_text() == chapter.caption("Drawn.") + "\n"
    assert pd.read_csv(run.figures / "drawn.csv").equals(gaps)
