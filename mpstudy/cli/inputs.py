"""What the commands take from files and options: each reader and check ends in one clear error."""

import argparse
import math
import textwrap
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tokenize import TokenError
from typing import Any

from ..errors import StudyError
from ..inputs.early import check_samples, plain_config
from ..inputs.folders import has_tokenizer
from ..inputs.tokens import check_room
from ..parameters import Count, Seed, Tokens, checked
from ..store.paths import check_checkout, home_dir
from ..store.writable import check_writable

Handler = Callable[[argparse.Namespace], int | None]  # takes the options, returns an exit status; None is 0

BOS = {"default": None, "yes": True, "no": False}
LAYERS_HELP = "inclusive range such as 4-25, one for each kind of units such as 'attention 4-25, mlp 2-28', or hidden"
BLOCKS_HELP = f"{LAYERS_HELP}; blocks for block-taylor, block-ppl and block-influence"


class Checked(argparse.Action):
    """Takes a value of ``kind``, a type of :mod:`mpstudy.parameters`, and raises :class:`StudyError` for any other,
    before the command imports what it works with.
    """

    def __init__(self, option_strings: list[str], dest: str, *, kind: Any, **more: Any):
        super().__init__(option_strings, dest, **more)
        self.kind = kind

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        checked(self.kind, f"--{self.dest.replace('_', '-')}", value)
        setattr(namespace, self.dest, value)


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


def add_calibration(parser, source, corpus: str = "--corpus") -> None:
    """Options of the calibration text; of ``source``, a group, ``--tokens`` and ``--corpus``, which may have another
    name, exclude each other.
    """
    source.add_argument("--tokens", type=Path, metavar="FILE.npy")
    source.add_argument(corpus, dest="corpus", metavar="CORPUS", default="sotu-early")
    parser.add_argument("--samples", action=Checked, kind=Count, type=int, default=10)
    parser.add_argument("--length", action=Checked, kind=Tokens, type=int, default=64)
    parser.add_argument("--sample-seed", action=Checked, kind=Seed, type=int, default=0)
    add_bos(parser, "each sample of a corpus")


def add_bos(parser, what: str) -> None:
    """The option that says whether ``what`` begins with BOS."""
    about = f"whether {what} begins with BOS (default: where the tokenizer itself puts one)"
    parser.add_argument("--bos", choices=BOS, default="default", help=about)


def add_dtype(parser) -> None:
    """The option of the dtype that a model is written in."""
    names = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=names, help="dtype of the written weights (default: that of the model's)")


def check_calibration(options) -> None:
    """Refuse of :func:`read_calibration` what can be known before anything heavy is imported."""
    if options.tokens and options.bos != "default":
        raise StudyError("--bos is about samples of a corpus; those of --tokens are used as they are")
    length = _tokens_shape(options.tokens)[1] if options.tokens else options.length
    if config := plain_config(options.model):
        check_room(config, length, [])


def read_calibration(options):
    """The calibration batch that the options of :func:`add_calibration` name, int64 (samples, length), or length + 1
    where a sample of a corpus begins with BOS. Comes after :func:`check_calibration`.
    """
    from ..inputs import corpora, models
    from ..inputs.tokens import leading

    config = models.load_config(options.model)
    if options.tokens:
        batch = _read_tokens(options.tokens)
        check_room(config, batch.shape[1], [])
    else:
        check_samples(options.corpus, options.samples)
        size = {"samples": options.samples, "length": options.length, "seed": options.sample_seed}
        tokenizer, bos = models.load_tokenizer(options.model), BOS[options.bos]
        check_room(config, options.length, leading(tokenizer, bos))
        batch = corpora.calibration_batch(tokenizer, options.corpus, bos=bos, **size)
    check_vocabulary(batch, options.model, options.tokens or options.corpus)
    return batch


def calibration_facts(options, batch) -> dict:
    """What a checkpoint records of the calibration that :func:`read_calibration` gave."""
    size = {"samples": len(batch), "length": batch.shape[1]}
    if options.tokens:
        return {"tokens": str(options.tokens)} | size
    bos = batch.shape[1] > options.length
    return {"corpus": options.corpus} | size | {"length": options.length, "seed": options.sample_seed, "bos": bos}


def tokenizer_or_none(model: str):
    """The tokenizer of a model, to be stored beside what is made of it; a folder without one is as good."""
    from ..inputs import models

    if Path(model).is_dir() and not has_tokenizer(Path(model)):
        return None
    return models.load_tokenizer(model)


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


def _tokens_shape(path: Path) -> tuple[int, int]:
    """Samples and length of the token ids in an ``.npy`` file: by its header alone, which its size must bear out."""
    import numpy as np

    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        if path.exists() and not path.is_file():
            raise StudyError("it is no file")
        with path.open("rb") as handle, warnings.catch_warnings(action="ignore"):  # of a header of Python 2
            shape, _, dtype = readers[np.lib.format.read_magic(handle)](handle)
            held = path.stat().st_size - handle.tell()
    except (OSError, ValueError, LookupError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise StudyError(f"cannot read tokens from {str(path)!r}: {_reason(error)}") from error
    if dtype != np.int64 or len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
        raise StudyError(f"{path} must hold an int64 array (samples, length >= 2), not {dtype} {shape}")
    if held < (needed := math.prod(shape) * dtype.itemsize):
        raise StudyError(f"cannot read tokens from {str(path)!r}: an array {shape} has {needed} bytes, here are {held}")
    return shape


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 200) or type(error).__name__


def _read_tokens(path: Path):
    """Token ids from an ``.npy`` file of the right shape, int64 (samples, length); nothing is unpickled."""
    import numpy as np
    import torch

    with path.open("rb") as handle:
        return torch.from_numpy(np.lib.format.read_array(handle, allow_pickle=False))


def read_text(path: Path) -> str:
    """The content of a UTF-8 file that is not empty, without a byte-order mark."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StudyError(f"cannot read the text {str(path)!r}: {error}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"cannot read the text {str(path)!r}: {error}; allowed is UTF-8") from error
    if "\0" in text:
        raise StudyError(f"cannot read the text {str(path)!r}: it holds zero bytes, as UTF-16 does; allowed is UTF-8")
    if not text.strip():
        raise StudyError(f"the text {str(path)!r} is empty")
    return text


def check_vocabulary(tokens, model: str, source) -> None:
    """Refuse token ids of ``source`` that ``model`` has no embedding for."""
    from ..inputs import models

    size = models.load_config(model).vocab_size
    if tokens.min() < 0 or tokens.max() >= size:
        raise StudyError(f"{source} holds token ids outside the vocabulary of {model}, which has {size}")


def check_file_target(path: Path) -> None:
    """Refuse an output file that cannot be written, or that would replace what is no file of scores, before the work
    rather than after it.
    """
    if path.is_dir():
        raise StudyError(f"--out {path} is a folder; name a file")
    if path.exists() and not _holds_scores(path):
        raise StudyError(f"--out {path} exists and holds no scores; choose another file")
    check_writable(path.parent)


def _holds_scores(path: Path) -> bool:
    """Whether ``path`` is a safetensors file that says so in its header."""
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        return b'"mpstudy_scores"' in handle.read(min(size, 2**20))
