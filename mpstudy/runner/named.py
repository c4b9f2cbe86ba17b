"""What the parameters of a run name that is not of this project: models, and the corpora and tasks of the hub.

The runner fetches all of it before the first notebook starts, and lets a notebook reach the hub only for what a hub
alone has.
"""

from pathlib import Path

from ..evaluation.tasks import TASKS
from ..inputs import hub
from ..inputs.names import is_bundled, is_optional

MODELS = ("model", "references")


def fetch(parameters: dict) -> None:
    """Make sure that all that ``parameters`` name is there, fetching what is not; StudyError for the first that cannot
    be had.
    """
    for name in _models(parameters):
        if is_bundled(name) and not is_optional(name):
            continue
        from ..inputs import models  # takes torch seconds to import, and no other run needs it

        models.fetch(name)
    for name, source in _of_hub(parameters).items():
        hub.files_of(name, source)


def needs_hub(parameters: dict) -> bool:
    """Whether a model is neither bundled nor a folder, or a corpus or task of the hub has no local copy."""
    models = any(not (is_bundled(name) or Path(name).is_dir()) for name in _models(parameters))
    return models or any(hub.local_copy(name) is None for name in _of_hub(parameters))


def _models(parameters: dict) -> list[str]:
    return [name for key in MODELS if key in parameters for name in _each(parameters[key])]


def hub_sources() -> dict[str, hub.Source]:
    """The corpora and the zero-shot tasks of the hub."""
    return {**hub.SOURCES} | {name: task.source for name, task in TASKS.items() if task.harness}


def _of_hub(parameters: dict) -> dict[str, hub.Source]:
    """Every corpus or task of the hub that a text names, by itself or as the change to that corpus."""
    texts = {text for value in parameters.values() for text in _each(value) if isinstance(text, str)}
    named = {text.removeprefix("corpus-") for text in texts}
    return {name: source for name, source in hub_sources().items() if name in named}


def _each(value: object) -> list:
    return value if isinstance(value, list) else [value]
