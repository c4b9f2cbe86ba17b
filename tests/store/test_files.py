"""Files and folders appear whole, and what a killed writer left goes with the next one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpstudy.store import files

WRITER = """
import sys, time
from mpstudy.store import files
with files.{kind}(sys.argv[1]) as partial:
    (partial / "half" if partial.is_dir() else partial).write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(kind: str, path) -> subprocess.Popen:
    """A process that is half-way through writing ``path``."""
    process = subprocess.Popen([sys.executable, "-c", WRITER.format(kind=kind), str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    return process


@pytest.mark.parametrize("kind", ["replacing", "new_folder"])
def test_a_killed_writer_leaves_nothing_that_stays(tmp_path, kind):
    path = tmp_path / "out[1]"  # a pattern would not find what is called so
    process = writer(kind, path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists() and len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".out[1]9.writing-of-another").mkdir()
    files.write_atomically(path, "whole")
    assert path.read_text() == "whole"
    assert {file.name for file in tmp_path.iterdir()} == {"out[1]", ".out[1]9.writing-of-another"}


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    process = writer("replacing", tmp_path / "out")
    try:
        (left,) = tmp_path.iterdir()
        files.write_atomically(tmp_path / "out", "mine")
        assert (left / "out").read_text() == "half"
    finally:
        process.kill()
        process.wait()


def test_a_folder_appears_whole_in_the_place_of_another(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    with files.new_folder(folder) as staged:
        (staged / "below").mkdir()
        (staged / "below" / "new").write_text("new")
        assert [file.name for file in folder.iterdir()] == ["old"]
    assert [file.name for file in folder.iterdir()] == ["below"] and (folder / "below" / "new").read_text() == "new"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_error_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(KeyError), files.new_folder(folder) as staged:
        (staged / "new").touch()
        raise KeyError
    assert [file.name for file in folder.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder, rename = tmp_path / "model", os.rename
    folder.mkdir()
    (folder / "old").touch()

    def fail(source, target):
        if Path(source).name == "new":
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no"), files.new_folder(folder):
        pass
    assert [file.name for file in folder.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [folder]


def test_many_writers_of_one_file_all_end_well(tmp_path):
    code = "import sys\nfrom mpstudy.store import files\nfor i in range(200): files.write_atomically(sys.argv[1], 'x')"
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_a_killed_writer_moved_out_of_the_way_comes_back(tmp_path):
    left = tmp_path / ".model.writing-1"
    (left / "old").mkdir(parents=True)
    (left / "old" / "weights").write_text("old")
    files.sweep(tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_a_new_folder_makes_its_parents(tmp_path):
    with files.new_folder(tmp_path / "new" / "below" / "out") as staged:
        (staged / "file").touch()
    assert [file.name for file in (tmp_path / "new" / "below" / "out").iterdir()] == ["file"]


def test_another_process_waits_for_a_folder_that_is_held(tmp_path):
    code = "import sys\nfrom mpstudy.store import files\nwith files.alone(sys.argv[1]): print('mine', flush=True)"
    with files.alone(tmp_path / "state"):
        waiting = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "state")], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
    assert waiting.communicate(timeout=30)[0] == b"mine\n"
