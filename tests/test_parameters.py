"""Every type of a parameter refuses what lies outside it, in one line that names parameter, value and rule."""

import math
from typing import Annotated

import numpy as np
import pytest
from pydantic import TypeAdapter

from mpstudy import parameters
from mpstudy.errors import StudyError
from mpstudy.parameters import Distinct, Rising, Seeds, Some, checked
from mpstudy.recovery import recipe
from mpstudy.runner import checks

PLAIN = "Count Tokens CountOrZero Seed Whole Finite Positive NonNegative Ratio Flag Text Table Entries Seeds Rising"
TYPES = {name: getattr(parameters, name) for name in PLAIN.split()}
TYPES |= {f"recipe {name}": kind for name, kind in recipe.RULES.items()}
TYPES |= {f"notebook {name}": kind for name, kind in checks.RULES.items()}
OF_KIND = {"integer": 3, "number": 0.5, "boolean": True, "string": "3", "object": {}, "array": [3]}


def schema_of(kind) -> dict:
    return TypeAdapter(kind).json_schema()


def wrong(schema: dict) -> list[tuple]:
    """Values that the kind and the bounds in the JSON schema of a type do not allow, and what is said of each."""
    if "type" not in schema:
        return []  # of any kind, such as 0.5 and "2:4"
    values = [None, math.nan, *(value for kind, value in OF_KIND.items() if kind != schema["type"])]
    if schema["type"] == "number":
        values = [value for value in values if value != OF_KIND["integer"]] + [math.inf, -math.inf, 10**400]
    step = 1 if schema["type"] == "integer" else 1e-9
    values += [schema["minimum"] - step] if "minimum" in schema else []
    values += [schema["maximum"] + step] if "maximum" in schema else []
    values += [schema[name] for name in ("exclusiveMinimum", "exclusiveMaximum") if name in schema]
    if "items" not in schema or "description" in schema:
        said = schema.get("description") or f"one of {', '.join(sorted(schema['enum']))}"
        return [(value, f"p must be {said}, not {value!r}") for value in values]
    lists = [(value, f"p: a list is needed, not {value!r}") for value in values]
    return lists + [([value], f"element 0 of {said}") for value, said in wrong(schema["items"])]


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_values_outside_a_type_are_refused_in_one_line(kind):
    for value, said in wrong(schema_of(kind)):
        with pytest.raises(StudyError) as caught:
            checked(kind, "p", value)
        assert str(caught.value) == said and "\n" not in said


def test_bad_values_of_every_kind_are_made():
    made = {name: [value for value, _ in wrong(schema_of(kind))] for name, kind in TYPES.items()}
    assert {name for name, values in made.items() if len(values) < 6} == {"notebook shown"}
    assert made["Tokens"][-1] == 1 and made["Ratio"][-2:] == [-1e-9, 1] and made["Positive"][-1] == 0
    assert made["Seed"][-2:] == [-1, 2**53]
    assert [True] in made["Seeds"] and [-1] in made["Seeds"] and ["3"] in made["notebook shares"]


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_values_at_the_bounds_of_a_type_pass(kind):
    schema = schema_of(kind)
    for value in [schema[bound] for bound in ("minimum", "maximum") if bound in schema]:
        assert checked(kind, "p", value) == value
    if schema.get("type") == "number":
        assert type(checked(kind, "p", 0 if "exclusiveMaximum" in schema else 3)) is float
        assert checked(kind, "p", np.float64(0.5)) == 0.5


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Seeds, [], "p: a list with at least one element is needed, not []"),
        (Seeds, [1, 0, 1], "p: [1, 0, 1] names 1 twice"),
        (Rising, [2, 1], "p: a list in rising order is needed, not [2, 1]"),
        (
            Some[Some[parameters.Ratio]],
            [[0.5], [0.5, 1]],
            "element 1 of element 1 of p must be a number in [0, 1), not 1",
        ),
    ],
)
def test_lists(kind, value, said):
    with pytest.raises(StudyError) as caught:
        checked(kind, "p", value)
    assert str(caught.value) == said


def test_a_list_may_be_a_tuple_and_an_optional_one_empty():
    assert checked(Seeds, "p", (2, 0)) == [2, 0]
    assert checked(Distinct[parameters.Text], "p", []) == []
    assert schema_of(Annotated[Seeds, "of a run"]) == schema_of(Seeds)
