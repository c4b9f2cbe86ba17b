"""Writing files so that they are either whole or absent."""

import os
import tempfile
from pathlib import Path
from types import TracebackType


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` through a neighbouring temporary file, so that a kill leaves the old file or the
    new one.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


class replacing:
    """``with replacing(path) as partial:`` write ``partial``; it becomes ``path`` when the block ends without an
    error.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        os.close(handle)
        self.partial = Path(name)
        return self.partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.partial.unlink(missing_ok=True)
            return
        with self.partial.open("rb") as handle:
            os.fsync(handle.fileno())
        self.partial.chmod(0o644)
        os.replace(self.partial, self.path)
