"""Command line of the study: ``python -m mpstudy COMMAND --help`` is a short manual of each command."""

import argparse
import sys

from . import __version__
from .cli import model, prune, runner
from .errors import StudyError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input ends in one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m mpstudy", description="A reproducible study of robust LLM pruning."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    runner.add_commands(commands)
    model.add_commands(commands)
    prune.add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        return options.func(options) or 0
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
