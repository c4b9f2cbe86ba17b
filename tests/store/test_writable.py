"""A folder that cannot be written to is refused, and asking leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from mpstudy.errors import StudyError
from mpstudy.store.writable import check_new_folder, check_writable


def test_a_folder_that_can_be_made_is_not_left_behind(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    check_writable(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and not list((tmp_path / "kept").iterdir())


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(StudyError, match=f"cannot write to the folder {folder}: "):
            check_writable(folder)
    assert (tmp_path / "file").is_file()


def test_many_processes_that_ask_at_once_all_hear_that_they_may(tmp_path):
    code = "import sys\nfrom pathlib import Path\nfrom mpstudy.store.writable import check_writable\n"
    code += "for i in range(300): check_writable(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "new" / "folder")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("name", [".", "../link", "../dangling"])
def test_a_place_that_cannot_be_filled_in_one_step_is_refused(tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(StudyError, match="cannot be put in place in one step"):
        check_new_folder(Path(name))


def test_what_a_killed_writer_left_goes(tmp_path):
    (tmp_path / ".out.writing-1").mkdir()
    check_new_folder(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mark", "replaced"), [("pruned.json", True), ("config.json", False)])
def test_only_its_like_is_replaced(tmp_path, mark, replaced):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / mark).touch()
    with pytest.raises(StudyError, match="out exists; choose another folder"):
        check_new_folder(tmp_path / "out")
    if replaced:
        check_new_folder(tmp_path / "out", "pruned.json")
    else:
        with pytest.raises(StudyError, match="exists and is not a pruned checkpoint"):
            check_new_folder(tmp_path / "out", "pruned.json")
