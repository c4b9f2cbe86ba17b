"""What a parameter may be: each rule is a type with bounds, declared once and checked by pydantic.

The types are strict: ``True`` and ``"3"`` are no numbers, ``1.0`` is no whole number, and NaN and infinity are refused;
an int may stand for a float. The description of a type is its rule in words, which an error repeats. Rules about names
(layers, pruners, corpora, tasks) stand in :mod:`mpstudy.runner.checks`.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .errors import StudyError

Item = TypeVar("Item")


def checked(kind: Any, name: str, value: Any) -> Any:
    """``value`` as ``kind``, one of the types below, or a :class:`StudyError` that names parameter, value and rule."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first, rule = error.errors(include_url=False)[0], adapter.json_schema()
    for index in first["loc"]:
        name, rule = f"element {index} of {name}", rule["items"]
    if first["type"] == "value_error":  # of a function below, or of one that knows the names
        raise StudyError(f"{name}: {first['ctx']['error']}")
    allowed = rule.get("description") or f"one of {', '.join(sorted(rule['enum']))}"
    raise StudyError(f"{name} must be {allowed}, not {first['input']!r}")


def _whole(least: int) -> FieldInfo:
    return Field(strict=True, ge=least, description=f"a whole number of at least {least}")


def _number(words: str, **bounds: Any) -> FieldInfo:
    return Field(strict=True, allow_inf_nan=False, description=words, **bounds)


Count = Annotated[int, _whole(1)]
Tokens = Annotated[int, _whole(2)]  # of a window or a sample, the first of which is not predicted
CountOrZero = Annotated[int, _whole(0)]
LARGEST_SEED = 2**53 - 1  # JSON keeps it, and a thousand times as much is a seed of torch
Seed = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEED, description="a whole number from 0 to 2**53 - 1")]
Whole = Annotated[int, Field(strict=True, description="a whole number")]
Finite = Annotated[float, _number("a finite number")]
Positive = Annotated[float, _number("a finite number > 0", gt=0)]
NonNegative = Annotated[float, _number("a finite number >= 0", ge=0)]
Ratio = Annotated[float, _number("a number in [0, 1)", ge=0, lt=1)]
Part = Annotated[float, _number("a number in [0, 1]", ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True, description="true or false")]
Text = Annotated[str, Field(strict=True, description="text")]
Table = Annotated[dict, Field(strict=True, description="`key: value` lines")]
Entries = Annotated[list, Field(strict=True, min_length=1, description="a list with at least one entry")]


def _listed(values: object) -> list:
    if not isinstance(values, (list, tuple)):
        raise StudyError(f"a list is needed, not {values!r}")
    return list(values)


def _distinct(values: list) -> list:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise StudyError(f"{values!r} names {value!r} twice")
    return values


def _filled(values: list) -> list:
    if not values:
        raise StudyError("a list with at least one element is needed, not []")
    return values


def _rising(values: list) -> list:
    if values != sorted(values):
        raise StudyError(f"a list in rising order is needed, not {values!r}")
    return values


Distinct = Annotated[list[Item], BeforeValidator(_listed), AfterValidator(_distinct)]
Some = Annotated[Distinct[Item], AfterValidator(_filled)]
Seeds = Some[Seed]
Rising = Annotated[Some[Count], AfterValidator(_rising)]
