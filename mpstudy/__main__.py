"""Command line of the study: ``python -m mpstudy COMMAND --help`` is a short manual of each command."""

import argparse
import errno
import os
import re
import sys
from typing import NoReturn

from . import __version__
from .cli import claims, model, prune, recover, runner, sparsify
from .errors import StudyError

EXTRAS = {  # the optional dependencies of pyproject.toml, by the names that are imported
    "recover": {"accelerate", "peft", "pytorch_optimizer"},
    "zeroshot": {"lm_eval"},
    "notebooks": {
        "IPython", "ipykernel", "jinja2", "jupyter_client", "jupyterlab", "matplotlib", "nbclient", "nbconvert",
        "nbformat", "papermill", "psutil", "seaborn", "yaml",
    },
}  # fmt: skip
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
UNUSABLE = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EBUSY}


class _Parser(argparse.ArgumentParser):
    """A parser, as are those of its commands, that says in one line what it cannot read."""

    def error(self, message: str) -> NoReturn:
        raise StudyError(f"{' '.join(message.split())}; `{self.prog} --help` shows how")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input ends in one line on stderr and exit status 2."""
    parser = _Parser(prog="python -m mpstudy", description="A reproducible study of robust LLM pruning.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    runner.add_commands(commands)
    claims.add_commands(commands)
    model.add_commands(commands)
    prune.add_commands(commands)
    sparsify.add_commands(commands)
    recover.add_commands(commands)
    options = argparse.Namespace()
    try:
        options = parser.parse_args(arguments)
        return options.func(options) or 0
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: {_remedy(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"error: {_unusable(error, options)}", file=sys.stderr)
        return 2


def _remedy(error: ModuleNotFoundError) -> str:
    """The line that says what to install; a module that no extra brings is a defect and raises ``error`` again."""
    for extra, modules in EXTRAS.items():
        if error.name in modules:
            return f"{error.name} is not installed: pip install 'mpstudy[{extra}]'"
    raise error


def _unusable(error: Exception, options: argparse.Namespace) -> str:
    """The line for a disk that is full or may not be written to, whichever library met it (safetensors and tokenizers
    tell the number in their text alone), and for a place that cannot be used. Anything else is a defect and raises
    ``error`` again.
    """
    told = re.search(r"\(os error (\d+)\)", str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    if number not in FULL | UNUSABLE:
        raise error
    file = getattr(error, "filename", None) or getattr(options, "out", None) or "the output"
    return f"cannot {'write' if number in FULL else 'use'} {file}: {os.strerror(number)}"


if __name__ == "__main__":
    sys.exit(main())
