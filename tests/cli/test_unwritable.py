"""A disk that is full or may not be written to ends a command in one line, whichever library met it."""

import errno
from argparse import Namespace
from pathlib import Path

import pytest
from safetensors import SafetensorError

from mpstudy import __main__
from mpstudy.cli import sparsify

FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), "cannot write x/y: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write out: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "cannot write out: Read-only file system"),
        (SafetensorError(FULL), "cannot write out: No space left on device"),
        (Exception("No space left on device (os error 28)"), "cannot write out: No space left on device"),  # tokenizers
    ],
)
def test_one_line_and_status_2(monkeypatch, capsys, error, line):
    def fail(options):
        raise error

    monkeypatch.setattr(sparsify, "_export", fail)
    assert __main__.main(["export", "pruned", "--out", "out"]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("error", [ValueError("a defect"), FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_a_defect_stays_one(error):
    with pytest.raises(type(error)):
        __main__._unusable(error, Namespace(out=Path("out")))
