"""Texts and instructions: what the study calibrates on, measures on and trains on.

The bundled corpora come from the files of ``data/MANIFEST``, the others from the Hugging Face hub or a local
copy of it (``mpstudy.inputs.hub``). Calibration ("sotu-early"), perplexity texts ("sotu-late", "wiki", "novel") and
instructions ("alpaca-demo") share no document and no run of 40 words; the longest run in common has 38, where
Truman in 1946 quotes Roosevelt's address of 1945.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..errors import StudyError, check_choice
from ..parameters import Count, checked
from ..registry import Registry
from . import hub, manifest
from .tokens import leading

SPLIT_YEAR = 1946
JOINT = "\n\n"  # between documents, as the perplexity code of GPTQ, Wanda and LLM-Pruner joins them
MOST_CHARACTERS = 20_000_000


@dataclass(frozen=True)
class Corpus:
    """A corpus by name. ``kind`` is "text" or "instructions"; ``load(local)`` gives its rows, all of them."""

    name: str
    kind: str
    about: str
    load: Callable[[str | Path | None], Sequence]


def load_texts(name: str, local: str | Path | None = None) -> Sequence[str]:
    """The documents of a text corpus: a list, or for a hub corpus a read-only sequence that stays on disk.

    ``local``: a copy of a hub corpus to read instead (``mpstudy.inputs.hub.load``). Raises StudyError for an unknown
    corpus and for one that cannot be read.
    """
    return _corpus(name, "text").load(local)


def load_instructions(name: str, local: str | Path | None = None) -> list[dict[str, str]]:
    """The rows of an instruction corpus: dicts with "instruction", "input" (may be empty) and "output".

    ``local`` and errors as in :func:`load_texts`.
    """
    return _corpus(name, "instructions").load(local)


def split_instructions(rows: list[dict], *, validation: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Divide instructions at random into (training, validation), the latter with ``validation`` rows.

    A prompt that occurs twice never stands on both sides: its copies leave the training rows.
    """
    if not 0 < validation < len(rows):
        raise StudyError(f"validation = {validation} of {len(rows)} rows: allowed is 1 to {len(rows) - 1}")
    order = torch.randperm(len(rows), generator=_generator(seed)).tolist()
    held_out = [rows[i] for i in order[:validation]]
    prompts = {_prompt(row) for row in held_out}
    training = [rows[i] for i in order[validation:] if _prompt(rows[i]) not in prompts]
    return training, held_out


def calibration_batch(
    tokenizer, corpus: str, *, samples: int, length: int, seed: int, bos: bool | None = None
) -> torch.Tensor:
    """Calibration tokens from a text corpus, int64 of shape (samples, length): see :func:`sample_windows`."""
    return sample_windows(tokenizer, load_texts(corpus), samples=samples, length=length, seed=seed, bos=bos)


def sample_windows(
    tokenizer, texts: Sequence[str], *, samples: int, length: int, seed: int, bos: bool | None = None
) -> torch.Tensor:
    """``samples`` random windows of ``length`` tokens of text, int64 of shape (samples, length), or length + 1 where
    each begins with BOS (``bos``, see :func:`.tokens.leading`). There are no other special tokens.

    LLM-Pruner's scheme (arXiv 2305.11627) but for BOS, which it has at the head of a document alone: a random
    document that is long enough, a random window in it, each document once before any comes again. The global random
    state is neither read nor changed.
    Raises StudyError when no document has ``length`` tokens, and for more samples than there can be windows.
    """
    checked(Count, "samples", samples)
    checked(Count, "length", length)
    check_samples(texts, samples)
    generator = _generator(seed)
    windows = []
    while len(windows) < samples:
        before = len(windows)
        for index in torch.randperm(len(texts), generator=generator).numpy():
            tokens = _token_ids(tokenizer, texts[int(index)])
            if len(tokens) >= length:
                start = int(torch.randint(len(tokens) - length + 1, (), generator=generator))
                windows.append(tokens[start : start + length])
            if len(windows) == samples:
                break
        if len(windows) == before:
            raise StudyError(f"no document of {length} tokens among the {len(texts)} of this corpus")
    return _led(torch.stack(windows), leading(tokenizer, bos))


def check_samples(texts: Sequence[str], samples: int) -> None:
    """Raise :class:`StudyError` for more ``samples`` than the texts have places where a token can begin."""
    if samples > len(texts) > 0 and samples > (places := sum(len(text.encode()) for text in texts)):
        raise StudyError(f"{samples} samples are wanted of a corpus of {places} bytes: at most as many as it has")


def corpus_windows(
    tokenizer,
    corpus: str,
    *,
    window: int,
    max_windows: int | None = None,
    local: str | Path | None = None,
    bos: bool | None = None,
) -> torch.Tensor:
    """The documents of a text corpus as one text, cut by :func:`text_windows`, which says the shape.

    Documents past the first 20 million characters are left out, which concerns only C4 and BookCorpus. ``local`` is
    a copy of a hub corpus to read instead, as for :func:`load_texts`.
    """
    text = JOINT.join(_first_documents(load_texts(corpus, local), MOST_CHARACTERS))
    return text_windows(tokenizer, text, window=window, max_windows=max_windows, bos=bos)


def text_windows(
    tokenizer, text: str, *, window: int, max_windows: int | None = None, bos: bool | None = None
) -> torch.Tensor:
    """``text`` as windows of ``window`` tokens that do not overlap, int64 of shape (n, window), or (n, window + 1)
    where each begins with BOS (``bos``, see :func:`.tokens.leading`). There are no other special tokens.

    The last, partial window is dropped. With ``max_windows`` fewer than there are, that many are kept, evenly
    spaced so that they cover the whole text. Raises StudyError when the text is shorter than one window.
    """
    checked(Count, "window", window)
    checked(Count, "max_windows", 1 if max_windows is None else max_windows)
    tokens = _token_ids(tokenizer, text)
    count = len(tokens) // window
    if count == 0:
        raise StudyError(f"text too short: {len(tokens)} tokens, the window needs {window}")
    windows = _led(tokens[: count * window].view(count, window), leading(tokenizer, bos))
    if max_windows is None or max_windows >= count:
        return windows
    return windows[[i * count // max_windows for i in range(max_windows)]]


def _corpus(name: str, kind: str) -> Corpus:
    check_choice(f"{kind} corpus", name, [corpus.name for corpus in CORPORA.values() if corpus.kind == kind])
    return CORPORA[name]


def _prompt(row: dict) -> tuple[str, str]:
    return row["instruction"], row["input"]


def _first_documents(documents: Iterable[str], characters: int) -> list[str]:
    """The documents that fit in ``characters``, read no further than that."""
    chosen, total = [], 0
    for document in documents:
        total += len(document)
        if total > characters:
            break
        chosen.append(document)
    return chosen


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _led(windows: torch.Tensor, first: list[int]) -> torch.Tensor:
    """``windows``, (n, tokens), each with the tokens ``first`` before it."""
    return torch.cat([torch.tensor([first], dtype=torch.int64).expand(len(windows), -1), windows], dim=1)


def _token_ids(tokenizer, text: str) -> torch.Tensor:
    # verbose: a whole corpus is longer than the model's context, of which the tokenizer would warn
    encoded = tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return torch.tensor(encoded["input_ids"], dtype=torch.int64)


def _sotu_early() -> list[str]:
    return _sotu(lambda year: year < SPLIT_YEAR)


def _sotu_late() -> list[str]:
    return _sotu(lambda year: year >= SPLIT_YEAR)


def _sotu(wanted: Callable[[int], bool]) -> list[str]:
    """State of the Union addresses of the wanted years in order of time, one document each.

    Messages and remarks that the package carries beside the addresses (``is_sotu`` False) are left out.
    """
    with zipfile.ZipFile(manifest.path("sotu")) as package:
        table = io.StringIO(package.read("sotu/data/metadata.csv").decode("utf-8"))
        rows = [row for row in csv.DictReader(table) if row["is_sotu"] == "True"]
        kept = [row["fileid"] for row in rows if wanted(int(row["year"]))]
        return [package.read(f"sotu/data/speeches/{fileid}.txt").decode("utf-8").strip() for fileid in kept]


def _wiki() -> list[str]:
    """The articles, one a line."""
    return _lines("wiki")


def _novel() -> list[str]:
    """The chapters, without title pages and licence. Its breaks of lines at 72 characters are spaces."""
    text = manifest.path("novel").read_text(encoding="utf-8-sig")
    story = text.partition("\nCHAPTER I\n")[2].partition("\n--(THE END)--")[0]
    chapters = re.split(r"^CHAPTER [IVX]+\.?$", story, flags=re.MULTILINE)
    return [" ".join(chapter.split()) for chapter in chapters]


def _c4_demo() -> list[str]:
    return [json.loads(line)["text"] for line in _lines("c4-demo")]


def _alpaca_demo() -> list[dict[str, str]]:
    return json.loads(manifest.path("alpaca-demo").read_text(encoding="utf-8"))


def _lines(name: str) -> list[str]:
    # not str.splitlines: it would also break at characters that stand inside a document
    text = manifest.path(name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line]


def _bundled(name: str, kind: str, about: str, read: Callable[[], list]) -> Corpus:
    def load(local: str | Path | None = None) -> list:
        if local is not None:
            raise StudyError(f"corpus {name!r} is bundled; local copies are of {', '.join(hub.SOURCES)}")
        return read()

    return Corpus(name, kind, about, load)


def _from_hub(name: str) -> Corpus:
    source = hub.SOURCES[name]
    kind = "instructions" if source.fields == hub.FIELDS else "text"
    return Corpus(name, kind, source.about, partial(hub.load, name))


CORPORA: Registry = Registry("corpus")
CORPORA.add("sotu-early", _bundled("sotu-early", "text", "addresses before 1946: calibration", _sotu_early))
CORPORA.add("sotu-late", _bundled("sotu-late", "text", "addresses from 1946: perplexity", _sotu_late))
CORPORA.add("wiki", _bundled("wiki", "text", "30 Wikipedia articles: perplexity", _wiki))
CORPORA.add("novel", _bundled("novel", "text", "Botchan, a novel in 11 chapters: perplexity", _novel))
CORPORA.add("c4-demo", _bundled("c4-demo", "text", "300 web documents of C4: another calibration text", _c4_demo))
CORPORA.add("alpaca-demo", _bundled("alpaca-demo", "instructions", "999 instructions: LoRA recovery", _alpaca_demo))
CORPORA.add("wikitext2", _from_hub("wikitext2"))
CORPORA.add("ptb", _from_hub("ptb"))
CORPORA.add("c4", _from_hub("c4"))
CORPORA.add("bookcorpus", _from_hub("bookcorpus"))
CORPORA.add("alpaca-cleaned", _from_hub("alpaca-cleaned"))
