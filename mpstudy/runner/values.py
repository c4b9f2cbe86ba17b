"""Values as people write them in YAML, in profiles and after ``-p``, and the types that parameters have."""

import re
import sys
from typing import Any

import yaml

from ..errors import StudyError


class _Loader(yaml.SafeLoader):
    """YAML as its version 1.2 reads it. In the one of PyYAML ``2:4`` is 124, ``no`` is false, and ``1e-4`` is text."""

    yaml_implicit_resolvers: dict = {}


_FORMS = {
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": ("[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
}
for _kind, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_form})$"), _first)


def parse_yaml(text: str, *, as_text: bool = False) -> Any:
    """The value of a YAML text, with ``as_text`` each scalar in it as text; StudyError, in one line, if it has none."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader if as_text else _Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise StudyError(f"not valid YAML: {' '.join(str(error).split())}") from error


def typed(what: str, value: Any, default: Any) -> Any:
    """``value`` if it has the type of ``default`` (an int may stand for a float), else a StudyError."""
    if default is None:
        return value
    if isinstance(default, float) and type(value) in (int, float):
        return value if abs(value) > sys.float_info.max else float(value)  # a larger int has no float
    if type(value) is not type(default):
        wanted, got = type(default).__name__, type(value).__name__
        raise StudyError(f"{what} must be {wanted} (such as {default!r}), not {got} ({value!r})")
    if isinstance(default, list) and default:
        return [typed(f"element {i} of {what}", element, default[0]) for i, element in enumerate(value)]
    return value
