"""What notebooks record, and how the runner shows it while they work."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from mpstudy import record
from mpstudy.errors import StudyError
from mpstudy.runner.progress import Progress, duration


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run as the runner starts it."""
    work = tmp_path / "laptop" / "work"
    work.mkdir(parents=True)
    context = work / "context.json"
    context.write_text(
        json.dumps(
            {
                "run": "mine",
                "profile": "laptop",
                "work": str(work),
                "reports": str(work.parent),
                "parameters": {"model": "smollm2-135m-instruct", "seeds": [0, 1, 2]},
            }
        )
    )
    monkeypatch.setenv("MPSTUDY_RUN", str(context))
    return record.start()


def finished(run) -> dict:
    run.finish()
    return json.loads((run.work / "partial.json").read_text())


def test_scalars_of_every_library_become_plain_numbers(run):
    torch = pytest.importorskip("torch")
    run.table(
        "values",
        [
            {
                "a": np.float32(0.5),
                "b": np.int64(3),
                "c": torch.tensor(2.0),
                "d": float("nan"),
                "e": None,
                "f": "text",
                "g": np.bool_(True),
            }
        ],
    )
    rows = finished(run)["tables"]["values"]["rows"]
    assert rows == [{"a": 0.5, "b": 3, "c": 2.0, "d": None, "e": None, "f": "text", "g": True}]


def test_a_frame_is_kept_with_its_units(run):
    run.table("ppl", pd.DataFrame({"seed": [0, 1], "ppl": [20.5, np.nan]}), units={"ppl": "perplexity"})
    assert finished(run)["tables"]["ppl"] == {
        "units": {"ppl": "perplexity"},
        "rows": [{"seed": 0, "ppl": 20.5}, {"seed": 1, "ppl": None}],
    }


@pytest.mark.parametrize(
    "rows, units, message",
    [
        ([{"x": float("inf")}], {}, "'t', row 0, column 'x': infinite"),
        ([{"x": 1}, {"x": [1]}], {}, "row 1, column 'x': list"),
        ([{"x": np.zeros(2)}], {}, "ndarray"),
        ([{"x": 1}, {"y": 1}], {}, "row 1: columns"),
        ([{"x": 1}], {"z": "s"}, "unknown columns"),
        ([], {}, "no rows"),
    ],
)
def test_bad_tables_are_refused(run, rows, units, message):
    with pytest.raises(StudyError, match=message):
        run.table("t", rows, units)


def test_a_table_is_written_once(run):
    run.table("t", [{"x": 1}])
    with pytest.raises(StudyError, match="already"):
        run.table("t", [{"x": 2}])


def test_a_stage_prints_one_line_and_is_timed(run, capsys):
    assert list(run.track(iter("abc"), "letters", total=3)) == ["a", "b", "c"]
    with run.stage("thinking"):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0] for line in lines] == ["letters: 3", "thinking: 0.0 s"]
    stages = finished(run)["stages"]
    assert [(stage["name"], stage["items"]) for stage in stages] == [("letters", 3), ("thinking", None)]


def test_a_stage_left_early_counts_what_was_done(run):
    steps = run.track(range(10), "search")
    next(steps), next(steps)
    steps.close()
    assert finished(run)["stages"][0]["items"] == 1


def test_the_stamp_names_profile_model_and_seeds(run):
    assert run.stamp() == "laptop profile · smollm2-135m-instruct · n = 3 seeds"
    assert run.stamp(1).endswith("n = 1 seed")


def test_results_of_other_runs_are_read_as_frames(run):
    (run.reports / "results").mkdir()
    content = {"tables": {"ppl": {"units": {}, "rows": [{"seed": 0, "ppl": 2.5}]}}}
    (run.reports / "results" / "other.json").write_text(json.dumps(content))
    assert run.frame("other", "ppl").to_dict("records") == [{"seed": 0, "ppl": 2.5}]
    with pytest.raises(StudyError, match="no finished run 'another' in laptop; finished: other"):
        run.results("another")
    with pytest.raises(StudyError, match="no table 'masks'; it has: ppl"):
        run.frame("other", "masks")


def test_an_open_session_writes_to_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("MPSTUDY_RUN", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "/somewhere/20_moreau_pruning.ipynb")
    monkeypatch.setattr(record, "REPORTS", tmp_path)
    run = record.start()
    assert run.figures == tmp_path / "interactive" / "20_moreau_pruning" / "figures" and run.figures.is_dir()
    assert run.reports == tmp_path / "laptop" and run.stamp() == "interactive profile"


# --- the runner's side -------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_progress_shows_stages_and_what_is_left(run, stream):
    progress = Progress({"mine": 60.0, "next": 600.0}, stream=stream)
    progress.begin("mine", run.progress_file)
    steps = run.track(range(4), "scores")
    next(steps), next(steps)
    progress.poll()
    assert 650 < progress.remaining_seconds() <= 660
    assert ("mine 0.0 s · scores 1/4" in stream.getvalue()) == stream.isatty()
    assert ("whole study: 11.0 min left" in stream.getvalue()) == stream.isatty()
    list(steps)
    progress.end("mine")
    progress.close()
    lines = [line.split("\x1b[2K")[-1] for line in stream.getvalue().strip().split("\n")]
    assert lines[0] == "[1/2] mine: starts, about 60 s"
    assert lines[-2:] == ["  mine: scores: 4 in 0.0 s", "[1/2] mine: done in 0.0 s"]


def test_a_half_written_progress_line_is_read_when_it_is_whole(run):
    stream = io.StringIO()
    progress = Progress({"mine": 0.0}, stream=stream)
    progress.begin("mine", run.progress_file)
    line = json.dumps({"event": "end", "stage": "scores", "done": 2, "total": 2, "seconds": 400})
    run.progress_file.write_text(line[:20])
    progress.poll()
    run.progress_file.write_text(line + "\n")
    progress.poll()
    assert "  mine: scores: 2 in 6.7 min\n" in stream.getvalue() and progress.remaining_seconds() is None


@pytest.mark.parametrize(
    "seconds, text", [(0.04, "0.0 s"), (59.6, "60 s"), (210, "210 s"), (750, "12.5 min"), (9000, "2.5 h")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
