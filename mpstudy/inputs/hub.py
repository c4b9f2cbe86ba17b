"""The corpora of the published study, and files of its zero-shot items (:mod:`mpstudy.evaluation.tasks`), from the
Hugging Face hub or from a local copy in the same format.

Every file is named with its revision. Two of the data sets are scripts on the hub, which ``datasets`` no
longer runs: for them the hub's own conversion to parquet is read (revision ``refs/convert/parquet``).
A local copy is a file, a folder in the hub's layout, or a folder with the files of the split that is read.
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StudyError
from ..registry import Registry
from ..store.paths import cache_dir

CONVERTED = "refs/convert/parquet"
LOCAL_VARIABLE = "MPSTUDY_HUB_DIR"
REACH_SECONDS = 5
FIELDS = ("instruction", "input", "output")
FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".txt": "text", ".raw": "text"}
SPLIT_WORDS = {"train": "train", "validation": "valid", "test": "test"}


@dataclass(frozen=True)
class Source:
    """Where a corpus lies on the hub, or what else ``kind`` says. ``fields`` are the columns read, ``keep_newline`` is
    about raw text.
    """

    about: str
    repo: str
    revision: str
    split: str
    files: tuple[str, ...]
    fields: tuple[str, ...] = ("text",)
    keep_newline: bool = False
    kind: str = "corpus"


SOURCES: Registry = Registry("hub corpus")
SOURCES.add(
    "wikitext2",
    Source(
        about="WikiText-2 raw, test split: perplexity",
        repo="Salesforce/wikitext",  # once called wikitext
        revision="b08601e04326c79dfdd32d625aee71d232d685c3",
        split="test",
        files=("wikitext-2-raw-v1/test-00000-of-00001.parquet",),
        keep_newline=True,
    ),
)
SOURCES.add(
    "ptb",
    Source(
        about="Penn Treebank, validation split, as LLM-Pruner evaluates it: perplexity",
        repo="ptb-text-only/ptb_text_only",  # once called ptb_text_only
        revision=CONVERTED,
        split="validation",
        files=("penn_treebank/validation/0000.parquet",),
        fields=("sentence",),
    ),
)
SOURCES.add(
    "c4",
    Source(
        about="C4, English, the first of 1024 training files: calibration",
        repo="allenai/c4",
        revision="1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
        split="train",
        files=("en/c4-train.00000-of-01024.json.gz",),
    ),
)
SOURCES.add(
    "bookcorpus",
    Source(
        about="BookCorpus, one sentence a row, as LLM-Pruner calibrates: calibration",
        repo="bookcorpus/bookcorpus",  # once called bookcorpus
        revision=CONVERTED,
        split="train",
        files=tuple(f"plain_text/train/{part:04d}.parquet" for part in range(10)),
    ),
)
SOURCES.add(
    "alpaca-cleaned",
    Source(
        about="Alpaca-cleaned, 52k instructions with answers: LoRA recovery",
        repo="yahma/alpaca-cleaned",
        revision="12567cabf869d7c92e573c7c783905fc160e9639",
        split="train",
        files=("alpaca_data_cleaned.json",),
        fields=FIELDS,
    ),
)


def load(name: str, local: str | Path | None = None) -> Sequence[str] | list[dict[str, str]]:
    """The rows of a hub corpus: texts (read from disk as they are asked for) or a list of instruction dicts.

    ``local`` is a copy to read instead of the hub, as is the folder ``<name>`` of the environment variable
    MPSTUDY_HUB_DIR. Raises StudyError for an unknown name, for a copy that does not hold the corpus, and,
    without waiting, when there is neither a copy nor a hub within reach.
    """
    source = SOURCES[name]
    dataset = _read(source, files_of(name, source, local))
    if source.fields == FIELDS:
        return [_instruction(name, number, row) for number, row in enumerate(dataset)]
    return dataset[source.fields[0]]


def _instruction(name: str, number: int, row: dict) -> dict[str, str]:
    """A row with text in each field; without an input it is one of its own kind, and the others must be there."""
    for field in ("instruction", "output"):
        if row[field] is None:
            raise StudyError(f"{name}: row {number} has no {field}")
    return {field: row[field] or "" for field in FIELDS}


def files_of(name: str, source: Source, local: str | Path | None = None) -> list[Path]:
    """The files of ``source``, called ``name``, which are fetched if need be but not read. Copies and errors are those
    of :func:`load`.
    """
    local = local or local_copy(name)
    return _local_files(source, Path(local)) if local else _hub_files(name, source)


def content_digest(name: str, source: Source) -> str:
    """What stands behind a corpus or task: sha256 of the files of its local copy or of those in the hub's cache, or
    repository and revision where none has been fetched.
    """
    if local := local_copy(name):
        files = _local_files(source, local)
    elif not all(files := _cached_files(source)):
        return f"{source.repo}@{source.revision}"
    total = hashlib.sha256()
    for file in map(Path, files):
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def is_of_files(digest: str) -> bool:
    """Whether :func:`content_digest` gave ``digest`` of files, not of a repository that nothing was fetched from."""
    return "@" not in digest


def _cached_files(source: Source) -> list[str | None]:
    """The files of a data set in the hub's cache, None for each that is not there."""
    from huggingface_hub import try_to_load_from_cache  # here, for it brings an HTTP client along

    where = {"repo_type": "dataset", "revision": source.revision}
    found = [try_to_load_from_cache(source.repo, file, **where) for file in source.files]
    return [path if isinstance(path, str) else None for path in found]


def local_copy(name: str) -> Path | None:
    """Where MPSTUDY_HUB_DIR holds a copy of a corpus or a task, if it does."""
    folder = os.environ.get(LOCAL_VARIABLE)
    return Path(folder) / name if folder and (Path(folder) / name).exists() else None


def _local_files(source: Source, place: Path) -> list[Path]:
    """The files of the wanted split: in the hub's layout if the folder has it, or else directly in it."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise StudyError(f"local copy {place} does not exist")
    layout = [place / file for file in source.files]
    if all(file.is_file() for file in layout):
        return layout
    found = sorted(file for file in place.iterdir() if _suffix(file) in FORMATS)
    if any(word in file.name for file in found for word in SPLIT_WORDS.values()):
        found = [file for file in found if SPLIT_WORDS[source.split] in file.name]
    if not found:
        raise StudyError(
            f"{place} holds no {source.split} split of {source.repo}: allowed are {source.files[0]} "
            f"or files that end in {', '.join(FORMATS)}"
        )
    return found


def _hub_files(name: str, source: Source) -> list[Path]:
    """The files in the Hugging Face cache, downloaded into it first if they are not there."""
    # imported here: slow, and not needed for the bundled corpora
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def get(local_files_only: bool) -> list[Path]:
        where = {"repo_id": source.repo, "repo_type": "dataset", "revision": source.revision}
        where["local_files_only"] = local_files_only
        return [Path(hf_hub_download(filename=file, **where)) for file in source.files]

    try:
        return get(local_files_only=True)
    except LocalEntryNotFoundError:
        if not answers():
            raise StudyError(_absent(name, source, f"{constants.ENDPOINT} is not within reach")) from None
    try:
        return get(local_files_only=False)
    except OSError as error:
        raise StudyError(_absent(name, source, str(error).splitlines()[0])) from None


def answers() -> bool:
    """Whether the hub may be asked, and is within reach."""
    from huggingface_hub import constants  # here, for it brings an HTTP client along

    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


def reachable(endpoint: str) -> bool:
    """Whether anything answers. Asked once: the hub's client repeats a failed request for half a minute."""
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # a refusal is an answer too
    except OSError:
        return False


def _absent(name: str, source: Source, reason: str) -> str:
    folder = Path(os.environ.get(LOCAL_VARIABLE, f"${LOCAL_VARIABLE}")) / name
    return (
        f"{source.kind} {name!r} cannot be loaded ({reason}); a local copy is accepted in {folder}: "
        f"the {source.split} split of {source.repo}, for example {folder / source.files[0]}"
    )


def _read(source: Source, files: list[Path]):
    """The files as one ``datasets.Dataset`` with the wanted columns, all of them text."""
    # imported here: slow, and not needed for the bundled corpora
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    form = format_of(files)
    options = {"data_files": [str(file) for file in files], "cache_dir": str(cache_dir() / "datasets")}
    if form == "text":
        options["keep_linebreaks"] = True
    try:
        dataset = load_dataset(form, split="train", **options)
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise StudyError(f"{files[0]} cannot be read as {form}: {reason}") from None
    if form == "text" and len(source.fields) == 1:
        extra = {"field": source.fields[0], "keep_newline": source.keep_newline}
        dataset = dataset.map(_as_row, fn_kwargs=extra, remove_columns="text")
    _check_columns(source, files[0], dataset)
    return dataset


def format_of(files: list[Path]) -> str:
    """The one format of some files, by the name that ``datasets`` has for it."""
    formats = {FORMATS.get(_suffix(file)) for file in files}
    if len(formats) != 1 or None in formats:
        raise StudyError(f"{files[0]}: allowed are files of one kind that end in {', '.join(FORMATS)}")
    return formats.pop()


def _as_row(row: dict, field: str, keep_newline: bool) -> dict:
    """A line of raw text as the hub's row: a blank line is empty; line ends stay where the hub keeps them."""
    line = row["text"].removeprefix("\ufeff")
    return {field: line if keep_newline and line.strip() else line.strip()}


def _check_columns(source: Source, file: Path, dataset) -> None:
    for field in source.fields:
        kind = getattr(dataset.features.get(field), "dtype", None)  # lists and objects have none
        if "string" not in str(kind):
            columns = ", ".join(dataset.column_names)
            raise StudyError(f"{file} has no text column {field!r}; its columns: {columns}")
    if not len(dataset):
        raise StudyError(f"{file} holds no rows")
    if len(source.fields) == 1 and (missing := dataset.data.column(source.fields[0]).null_count):
        raise StudyError(f"{file}: {missing} rows have no {source.fields[0]!r}")


def _suffix(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix
