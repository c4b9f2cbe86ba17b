"""What the parameters of a run name that is not of this project: models, and the corpora and tasks of the hub.

The runner fetches all of it before the first notebook starts, and lets a notebook reach the hub only for what a hub
alone has.
"""

from pathlib import Path

from ..inputs import hub
from ..inputs.names import is_bundled

MODELS = ("model", "references")


def fetch(parameters: dict) -> None:
    """Make sure that all that ``parameters`` name is there, fetching what is not; StudyError for the first that cannot
    be had.
    """
    for name in _models(parameters):
        from ..inputs import models  # takes torch seconds to import, and no other run needs it

        models.fetch(name)
    for name in sorted(_of_hub(parameters)):
        hub.files_of(name)


def needs_hub(parameters: dict) -> bool:
    """Whether a model is neither bundled nor a folder, or a corpus or task of the hub has no local copy."""
    models = any(not Path(name).is_dir() for name in _models(parameters))
    return models or any(hub.local_copy(name) is None for name in _of_hub(parameters))


def _models(parameters: dict) -> list[str]:
    """The models that are not bundled."""
    names = [name for key in MODELS if key in parameters for name in _each(parameters[key])]
    return [name for name in names if not is_bundled(name)]


def _of_hub(parameters: dict) -> set[str]:
    """Every text that names a corpus or a task of the hub, by itself or as the change to that corpus."""
    texts = {text for value in parameters.values() for text in _each(value) if isinstance(text, str)}
    return {text.removeprefix("corpus-") for text in texts} & (hub.SOURCES.keys() | hub.TASKS.keys())


def _each(value) -> list:
    return value if isinstance(value, list) else [value]
