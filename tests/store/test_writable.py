"""A folder that cannot be written to is refused, and asking leaves nothing behind."""

import pytest

from mpstudy.errors import StudyError
from mpstudy.store.writable import check_writable


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
