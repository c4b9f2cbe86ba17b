"""Changed prose, comments and formatting come into the executed notebook and its page without executing anything."""

import json
import os
from pathlib import Path

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.runner.kernel import execute_notebook
from mpstudy.runner.profiles import load_profile
from mpstudy.runner.prose import refresh, splice

CODE = "(run.figures / 'a.txt').write_text('a')\nprint('the number is', power)\nrun.table('t', [{'x': power}])"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> TinyStudy:
    study = TinyStudy(tmp_path_factory.mktemp("study"))
    study.notebook("write", "power = 2.0", CODE)
    study.profile([study.run("write", parameters={"power": 3.0})])
    study.report()
    return study


@pytest.fixture
def study(finished, monkeypatch):
    """The finished study, put back as it was afterwards; nothing may be executed in it."""
    kept = {path: path.read_bytes() for path in (*finished.notebooks.glob("*.ipynb"), *files(finished))}
    monkeypatch.setattr("mpstudy.runner.execute.execute_notebook", forbidden)
    yield finished
    for path, content in kept.items():
        path.write_bytes(content)


def forbidden(*arguments):
    raise AssertionError("a notebook was executed")


def files(study) -> list[Path]:
    return sorted(path for path in study.home.rglob("*") if path.is_file() and "work" not in path.parts)


def state(study) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(study)}


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def retell(study) -> None:
    """Other prose, one more text, comments and another formatting of the code."""
    path = study.notebooks / "write.ipynb"
    content = json.loads(path.read_text())
    first, parameters, code, last = content["cells"]
    first["source"] = "# Told anew\n\nIn other words."
    parameters["source"] = "power = 2.0  # a unit"
    code["source"] = "# What follows is explained.\n" + code["source"].replace(
        "print('the number is', power)", 'print(\n    "the number is", power\n)'
    )
    more = {"cell_type": "markdown", "id": "more", "metadata": {}, "source": "And a last word."}
    content["cells"] = [first, parameters, code, last, more]
    path.write_text(json.dumps(content))


def test_a_notebook_that_was_just_executed_is_left_as_it_is(study):
    before = state(study)
    assert refresh(load_profile("tiny", study.profiles).runs, study.home) == []
    assert state(study) == before


def test_changed_prose_and_comments_appear_in_the_notebook_and_its_page(study):
    executed, page = study.home / "write.ipynb", study.home / "write.html"
    assert "Told anew" not in page.read_text()
    retell(study)
    assert study.report() == []
    after = cells(executed)
    text = "".join("".join(cell["source"]) for cell in after)
    told = ("Told anew", "And a last word.", "What follows is explained.")
    assert all(words in text for words in (*told, "# a unit", 'print(\n    "the number is"'))
    assert all(words in page.read_text() for words in told)
    assert "What it" not in text and "does" not in text


def test_outputs_and_counts_stay(study):
    executed = study.home / "write.ipynb"
    before = [cell for cell in cells(executed) if cell["cell_type"] == "code"]
    assert "the number is 3.0\n" in str(before).replace("\\n", "\n")
    retell(study)
    study.report()
    after = [cell for cell in cells(executed) if cell["cell_type"] == "code"]
    for name in ("outputs", "execution_count"):
        assert [cell[name] for cell in after] == [cell[name] for cell in before]
    assert "the number is 3.0" in (study.home / "write.html").read_text()


def test_the_injected_parameters_stay_in_their_place(study):
    def tags(path):
        return [cell["metadata"].get("tags", []) for cell in cells(path)]

    executed = study.home / "write.ipynb"
    before = tags(executed).index(["injected-parameters"])
    retell(study)
    study.report()
    assert tags(executed).index(["injected-parameters"]) == before == tags(executed).index(["parameters"]) + 1
    assert "power = 3.0" in "".join(cells(executed)[before]["source"])


def test_results_and_figures_stay_as_they_are(study):
    before = state(study)
    retell(study)
    study.report()
    after = state(study)
    assert after.keys() == before.keys()
    kept = {path for path in before if "results" in path.parts or "figures" in path.parts}
    assert kept and all(after[path] == before[path] for path in kept)


def test_a_second_time_nothing_changes(study):
    retell(study)
    study.report()
    before = {path: value for path, value in state(study).items() if path.stem == "write"}
    assert splice(study.notebooks / "write.ipynb", study.home / "write.ipynb") is None
    study.report()
    assert before.items() <= state(study).items()


def test_changed_code_is_executed_and_not_spliced(study):
    study.notebook("write", "power = 2.0", CODE.replace("'t'", "'u'"))
    with pytest.raises(AssertionError, match="a notebook was executed"):
        study.report()


@pytest.mark.parametrize("writes", [0, 1])
def test_a_kill_between_notebook_and_page_is_mended_the_next_time(study, monkeypatch, writes):
    """Of the two files that are replaced, ``writes`` are before it dies."""
    runs, executed, page = load_profile("tiny", study.profiles).runs, study.home / "write.ipynb", "write.html"
    before, replaced, replace = executed.read_bytes(), [], os.replace
    retell(study)

    def deadly(source, target):
        if len(replaced) == writes:
            raise KeyboardInterrupt
        replaced.append(replace(source, target))

    monkeypatch.setattr("os.replace", deadly)
    with pytest.raises(KeyboardInterrupt):
        refresh(runs, study.home)
    assert executed.read_bytes() == before, "the notebook is the last"
    monkeypatch.setattr("os.replace", replace)
    assert refresh(runs, study.home) == ["write"] and refresh(runs, study.home) == []
    assert "Told anew" in executed.read_text() and "Told anew" in (study.home / page).read_text()


def test_the_guard_of_these_tests_guards_what_executes():
    from mpstudy.runner import execute

    assert execute.execute_notebook is execute_notebook
