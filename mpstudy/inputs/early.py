"""Checks of inputs before anything heavy is imported: what they can tell of a mistake, they tell at once."""

import json
from pathlib import Path
from types import SimpleNamespace

from ..errors import StudyError
from . import hub
from .folders import check_folder
from .names import bundled_folder, check_name, hub_snapshot, is_bundled

KINDS = {"model_type": str, "num_hidden_layers": int, "max_position_embeddings": int}
FEW_SAMPLES = 10_000  # so many are drawn from the shortest text in seconds


def check_model(name: str) -> str:
    """``name``, if a model may have it: a bundled one, a folder, or one of the hub that is here or within reach."""
    check_name(name)
    if is_bundled(name):
        return name
    if Path(name).is_dir():
        check_folder(Path(name))
        return name
    if hub_snapshot(name) is None and not hub.answers():
        raise StudyError(f"model {name!r} is not in the local cache and no hub is within reach; give a folder")
    return name


def plain_config(model: str) -> SimpleNamespace | None:
    """What the config file of a model says of :data:`KINDS`, read without transformers, which takes seconds to import.

    None where there is no such file, or none that says which family the model is of. What a file leaves out is missing
    here; transformers alone knows what it then is.
    """
    folder = Path(model) if Path(model).is_dir() else hub_snapshot(model)
    if is_bundled(model):
        folder = bundled_folder(model)
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        return None
    return SimpleNamespace(**{name: raw[name] for name, kind in KINDS.items() if type(raw.get(name)) is kind})


def check_samples(corpus: str, samples: int) -> None:
    """Raise :class:`StudyError` for more ``samples`` than a text corpus has windows: each begins at a token of its own,
    which has at least a byte, and a character has at most four. No more of a corpus is read than that takes.
    """
    if samples <= FEW_SAMPLES:
        return
    from .corpora import load_texts

    most = 0
    for text in load_texts(corpus):
        most += 4 * len(text)
        if most >= samples:
            return
    raise StudyError(f"{samples} samples are wanted, and corpus {corpus!r} has at most {most} windows of text")
