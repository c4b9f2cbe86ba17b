"""Parameters of a notebook as a shell gives them: ``-p NAME=VALUE``."""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import StudyError, check_choice
from ..runner.profiles import notebook_parameters
from ..runner.values import parse_yaml, typed

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a table"}


def read_parameters(given: Iterable[str], notebook: Path) -> dict[str, Any]:
    """The values of the texts ``NAME=VALUE`` by name, each of the type that its parameter has in ``notebook``.

    A value is YAML; where the parameter is text or a list of texts, what looks like a number is text too. Raises
    :class:`StudyError` for an unknown notebook or parameter, and for another type with how that parameter is written.
    """
    defaults = notebook_parameters(notebook)
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise StudyError(f"-p takes NAME=VALUE, not {text!r}")
        check_choice(f"parameter of {notebook.stem}", name, defaults)
        found[name] = _value(name, value, defaults[name])
    return found


def _value(name: str, text: str, default: Any) -> Any:
    if name == "model" and Path(text).is_dir():  # relative to here, not to where the notebook executes
        return str(Path(text).resolve())
    first = default[0] if isinstance(default, list) and default else default
    try:
        return typed(name, parse_yaml(text, as_text=isinstance(first, str)), default)
    except StudyError as error:
        few = default[:3] if isinstance(default, list) else default
        example = shlex.quote(f"{name}={few if isinstance(few, str) else json.dumps(few)}")
        what = KINDS.get(type(default), "a value")
        raise StudyError(f"parameter {name!r} must be {what}, such as -p {example}, not {text!r}") from error
