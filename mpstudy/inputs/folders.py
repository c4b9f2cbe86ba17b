"""What a model folder holds, looked at before anything heavy is imported: damage that a loader would pass over."""

import json
from pathlib import Path

from ..errors import StudyError

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")
PRUNED, INDEX = "pruned.json", "model.safetensors.index.json"
TABLES = {"config.json": (), "generation_config.json": (), PRUNED: ("files", "meta", "units"), INDEX: ("weight_map",)}


def check_folder(folder: Path) -> None:
    """Raise :class:`StudyError` for settings that are no JSON object, or whose parts are none, and for pickled weights
    alone. transformers would go on without the settings of generation.
    """
    for name, parts in TABLES.items():
        if (folder / name).is_file():
            found = _object(folder / name)
            for part in parts:
                if not isinstance(found.get(part, {}), dict):
                    raise StudyError(f"{folder / name} is damaged: its {part!r} is no JSON object")
    check_pickles(folder)
    shards = _object(folder / INDEX).get("weight_map", {}).values() if (folder / INDEX).is_file() else ()
    if not all(isinstance(shard, str) for shard in shards):
        raise StudyError(f"{folder / INDEX} is damaged: its 'weight_map' holds what is no file name")


def check_pickles(folder: Path) -> None:
    """Raise :class:`StudyError` for weights that are pickles alone."""
    if not any(folder.glob("*.safetensors")) and (pickles := sorted(folder.glob("*.bin"))):
        raise StudyError(
            f"the weights of {folder} are pickles ({pickles[0].name}), which are never read: convert them to "
            "model.safetensors"
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether a file of a tokenizer is there, damaged or not."""
    return any((folder / name).exists() for name in TOKENIZERS)


def _object(file: Path) -> dict:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{file} is damaged: it is no JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        raise StudyError(f"{file} is damaged: it is no JSON object")
    return found
