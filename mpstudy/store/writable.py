"""Whether a result can be written where it shall lie, asked before the work and not after it."""

import tempfile
from contextlib import suppress
from pathlib import Path

from ..errors import StudyError
from .files import sweep

TRIES = 100


def check_writable(folder: Path) -> None:
    """:class:`StudyError` if ``folder`` cannot be made or takes no files. What is made to find out is removed again."""
    for left in reversed(range(TRIES)):
        try:
            _try(folder)
            return
        except OSError as error:
            # another process that asks the same may have removed the folder; /proc has no place at all
            if not (left and isinstance(error, (FileNotFoundError, FileExistsError))):
                raise StudyError(f"cannot write to the folder {folder}: {error.strerror}") from error


def _try(folder: Path) -> None:
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    finally:
        with suppress(OSError):  # another process has put something there by now
            for each in new:
                each.rmdir()


def check_new_folder(folder: Path, replaced: str | None = None) -> None:
    """:class:`StudyError` if ``folder`` cannot be made or holds something, unless that is a file called ``replaced``,
    which marks what the new folder takes the place of. What killed writers left beside it is removed.
    """
    if folder.parent.is_dir():
        sweep(folder)
    holds = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if holds and not (replaced and (folder / replaced).is_file()):
        what = " and is not a pruned checkpoint" if replaced else ""
        raise StudyError(f"{folder} exists{what}; choose another folder")
    if not folder.name or folder.name == ".." or folder.is_symlink() or folder.is_mount():
        raise StudyError(
            f"{folder} cannot be put in place in one step: name a folder that is no link, no mount, not '.'"
        )
    check_writable(folder.parent)
