"""Where things lie, in a checkout of the repository or in an installed package.

An installed package carries ``data/``, and no notebooks and no reports. ``MPSTUDY_CACHE`` moves the cache, for example
to a larger disk.
"""

import os
from pathlib import Path

from ..errors import StudyError

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
INSTALLED = (PACKAGE / "data").is_dir()  # in a checkout data/ stands beside the package
DATA = (PACKAGE if INSTALLED else ROOT) / "data"
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
REPORTS = ROOT / "reports"


def cache_dir() -> Path:
    """The folder of downloaded, converted and computed files.

    ``MPSTUDY_CACHE``, or the git-ignored ``data/cache`` of a checkout, or the user's cache folder. Raises
    :class:`StudyError` when the user has no home folder for it.
    """
    if named := os.environ.get("MPSTUDY_CACHE"):
        return Path(named)
    return _user_cache() if INSTALLED else DATA / "cache"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or home_dir() / ".cache") / "mpstudy"


def home_dir() -> Path:
    """The user's home folder; :class:`StudyError` where nothing names one, as in some containers."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise StudyError("this user has no home folder: name a folder in HOME") from error


def model_name(model: str) -> str:
    """A model as figures and captions name it: a folder without those above it, which are of one machine."""
    return Path(model).name if Path(model).is_dir() else model


def check_checkout(command: str) -> None:
    """Raise :class:`StudyError` where ``command`` finds no notebooks and reports: outside a checkout."""
    if not PROFILES.is_dir():
        raise StudyError(f"{command} needs a checkout of the repository, with its notebooks; {PACKAGE} has none")
