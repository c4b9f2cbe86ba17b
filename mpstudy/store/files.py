"""Writing files and folders so that they are either whole or absent.

What is being written lies in a hidden folder beside its place, which its writer holds locked: the lock ends with the
process, so that a later writer of the same place can tell what a killed one left, and removes it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OLD = "old"  # what a new folder takes the place of, while it does


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path``, so that a kill leaves the old file or the new one."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """``with replacing(path) as partial:`` write ``partial``; it becomes ``path`` when the block ends without an
    error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging(path) as scratch:
        partial = scratch / path.name
        yield partial
        _keep(partial)
        os.replace(partial, path)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """``with new_folder(folder) as staged:`` write into the folder ``staged``; it becomes ``folder``, in the place of
    one that was there, when the block ends without an error.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staging(folder) as scratch:
        staged = scratch / "new"
        staged.mkdir()
        yield staged
        for file in staged.rglob("*"):
            if file.is_file():
                _keep(file)
        old = scratch / OLD
        if folder.exists():  # out of the way in one step, not file by file
            os.rename(folder, old)
        try:
            os.rename(staged, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise


def sweep(path: str | Path) -> None:
    """Remove what killed writers of ``path`` left beside it, and put back what the last had moved out of the way; what
    a living one writes stays.
    """
    path = Path(path)
    for left in path.parent.iterdir():
        if left.name.startswith(_prefix(path)):
            with suppress(OSError):
                _remove_unlocked(left, path)


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Hold ``folder``, which is made if need be, locked: another process that asks for it waits."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_unlocked(left: Path, path: Path) -> None:
    handle = os.open(left, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (left / OLD).exists() and not path.exists():
            os.rename(left / OLD, path)
        shutil.rmtree(left)
    finally:
        os.close(handle)


def _prefix(path: Path) -> str:
    return f".{path.name}.writing-"


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """An empty locked folder beside ``path``, whose parent is there; it is removed at the end."""
    sweep(path)
    scratch, handle = _locked_folder(path)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder beside ``path`` and the open handle that locks it. One that another process swept before it was
    locked is made again.
    """
    while True:
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
        with suppress(FileNotFoundError):
            handle = os.open(scratch, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if scratch.is_dir():
                return scratch, handle
            os.close(handle)


def _keep(file: Path) -> None:
    """Make sure that a file is on the disk before its name says that it is whole."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
