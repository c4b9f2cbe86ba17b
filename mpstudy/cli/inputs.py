"""What the commands take from files and options: each reader and check ends in one clear error."""

import argparse
import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from ..errors import StudyError
from ..parameters import Count, Tokens, checked
from ..store.paths import check_checkout, home_dir

Handler = Callable[[argparse.Namespace], int | None]  # takes the options, returns an exit status; None is 0

BOS = {"default": None, "yes": True, "no": False}
LAYERS_HELP = "inclusive range such as 4-25, one for each kind of units such as 'attention 4-25, mlp 2-28', or hidden"


def add_command(commands, name: str, brief: str, manual: str, handler: Handler) -> argparse.ArgumentParser:
    """A parser for the command ``name``: its help is ``manual`` as it stands, ``handler`` does its work."""
    form = {"description": textwrap.dedent(manual), "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = commands.add_parser(name, help=brief, **form)
    parser.set_defaults(func=handler)
    return parser


def study_command(handler: Handler) -> Handler:
    """The ``handler`` of a command on notebooks and reports. It raises :class:`StudyError` in an installed package,
    which has none, and for a user without a home folder, which Jupyter needs.
    """

    @wraps(handler)
    def checked(options):
        check_checkout(handler.__name__.strip("_"))
        home_dir()
        return handler(options)

    return checked


def add_calibration(parser, source) -> None:
    """Options of the calibration text; of ``source``, a group, ``--tokens`` and ``--corpus`` exclude each other."""
    source.add_argument("--tokens", type=Path, metavar="FILE.npy")
    source.add_argument("--corpus", default="sotu-early")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--sample-seed", type=int, default=0)
    add_bos(parser, "each sample of a corpus")


def add_bos(parser, what: str) -> None:
    """The option that says whether ``what`` begins with BOS."""
    about = f"whether {what} begins with BOS (default: where the tokenizer itself puts one)"
    parser.add_argument("--bos", choices=BOS, default="default", help=about)


def add_dtype(parser) -> None:
    """The option of the dtype that a model is written in."""
    names = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=names, help="dtype of the written weights (default: that of the model's)")


def read_calibration(options):
    """The calibration batch that the options of :func:`add_calibration` name, int64 (samples, length), or length + 1
    where a sample of a corpus begins with BOS.
    """
    from ..inputs import corpora, models
    from ..inputs.tokens import check_room, leading

    check_options(Count, samples=options.samples)
    check_options(Tokens, length=options.length)
    if options.tokens:
        batch = _read_tokens(options.tokens)
    else:
        size = {"samples": options.samples, "length": options.length, "seed": options.sample_seed}
        tokenizer, bos = models.load_tokenizer(options.model), BOS[options.bos]
        check_room(models.load_config(options.model), options.length, leading(tokenizer, bos))
        batch = corpora.calibration_batch(tokenizer, options.corpus, bos=bos, **size)
    check_vocabulary(batch, options.model, options.tokens or options.corpus)
    return batch


def tokenizer_or_none(model: str):
    """The tokenizer of a model, to be stored beside what is made of it; a model without one is as good."""
    from ..inputs import models

    try:
        return models.load_tokenizer(model)
    except StudyError:
        return None


def setting(text: str):
    """``KEY=VALUE`` as a name and a bool (``true``, ``false``), whole number, number or text, the first that fits."""
    key, separator, value = text.partition("=")
    if not separator:
        raise StudyError(f"--set takes KEY=VALUE, not {text!r}")
    if value in ("true", "false"):
        return key, value == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _read_tokens(path: Path):
    """Token ids from an ``.npy`` file, int64 (samples, length); nothing is unpickled."""
    import numpy as np
    import torch

    try:
        with path.open("rb") as handle:
            array = np.lib.format.read_array(handle, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StudyError(f"cannot read tokens from {str(path)!r}: {textwrap.shorten(str(error), 200)}") from error
    if array.dtype != np.int64 or array.ndim != 2 or not len(array) or array.shape[1] < 2:
        raise StudyError(f"{path} must hold an int64 array (samples, length >= 2), not {array.dtype} {array.shape}")
    return torch.from_numpy(array)


def read_text(path: Path) -> str:
    """The content of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read the text {str(path)!r}: {error}") from error


def check_options(kind, **options) -> None:
    """Refuse an option, named by its keyword, that is no ``kind``; ``None`` passes."""
    for name, value in options.items():
        if value is not None:
            checked(kind, f"--{name.replace('_', '-')}", value)


def check_vocabulary(tokens, model: str, source) -> None:
    """Refuse token ids of ``source`` that ``model`` has no embedding for."""
    from ..inputs import models

    size = models.load_config(model).vocab_size
    if tokens.min() < 0 or tokens.max() >= size:
        raise StudyError(f"{source} holds token ids outside the vocabulary of {model}, which has {size}")


def check_file_target(path: Path) -> None:
    """Make the folder of an output file now rather than after the work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    if path.is_dir():
        raise StudyError(f"--out {path} is a folder; name a file")
