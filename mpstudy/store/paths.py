"""Where things lie. ``MPSTUDY_CACHE`` moves the cache, for example to a larger disk."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
REPORTS = ROOT / "reports"


def cache_dir() -> Path:
    """The git-ignored folder of downloaded, converted and computed files."""
    return Path(os.environ.get("MPSTUDY_CACHE", DATA / "cache"))
