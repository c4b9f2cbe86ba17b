"""The form of code holds what a computer acts on, and nothing else."""

import ast
import textwrap

import pytest

from mpstudy.errors import StudyError
from mpstudy.store.syntax import Form, form_of, imports_of


def form(source: str, own: tuple[str, ...] = ()) -> Form:
    """The form of a file's source; ``own``: names that the file defines elsewhere."""
    tree = ast.parse(textwrap.dedent(source))
    find = lambda name: ("here", name) if name in own else None  # noqa: E731
    return form_of(tree.body, imports_of(tree, "mpstudy.kinds"), find, lambda target, parts: ([], 0))


def own_names(source: str) -> set[str]:
    """Which of the names ``outer`` and ``other``, defined in the same file, a source means."""
    return {name for _, name in form(source, own=("outer", "other")).names}


# --- What changes nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first, second",
    [
        ("def f(x):\n    return x + 1", "def f(x):\n    # more\n\n    return (x +\n            1)"),
        ("def f(x):\n    return x", 'def f(x):\n    """About f."""\n    return x'),
        ("def f():\n    pass", 'def f():\n    """About f."""'),
        ("class C:\n    x = 1", 'class C:\n    """About C."""\n\n    x = 1'),
        ("def f(x, y=1):\n    return x", "def f(x: 'Tensor', y: int = 1) -> 'Tensor':\n    return x"),
        ("def f():\n    x = 1\n    return x", "def f():\n    x: int = 1\n    return x"),
        ("class C:\n    x: int", "class C:\n    x: float"),
        ("x = 'a' 'b'", "x = 'ab'"),
        ("x = u'a'", "x = 'a'"),
        ("import numpy as np\nnp.mean(1)", "import numpy\nnumpy.mean(1)"),
        ("import numpy as np\nnp.mean(1)", "from numpy import mean\nmean(1)"),
        ("from numpy import mean as m\nm(1)", "from numpy import mean\nmean(1)"),
        ("import numpy\ndef f():\n    return numpy.e", "def f():\n    import numpy\n    return numpy.e"),
        ("import os\nimport sys\nx = 1", "import sys\nx = 1"),
        ("from .more import x\nx()", "from mpstudy.kinds.more import x\nx()"),
        ("from ..more import x\nx()", "from mpstudy import more\nmore.x()"),
    ],
)
def test_the_same_computation_has_the_same_form(first, second):
    a, b = form(first), form(second)
    if ": int = 1" in second.partition("\n")[2]:  # an annotated assignment is another node of the tree
        assert a.names == b.names and a.strings == b.strings
    else:
        assert a.text == b.text and a.digest == b.digest


# --- What changes something -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first, second",
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("from math import sqrt\nsqrt(2)", "from numpy import sqrt\nsqrt(2)"),
        ("import numpy as np\nnp.mean(1)", "import torch as np\nnp.mean(1)"),
        ("from .a import x\nx()", "from ..a import x\nx()"),
        ("def f(x, y=1):\n    pass", "def f(x, y=2):\n    pass"),
        ("def f(x, y):\n    pass", "def f(y, x):\n    pass"),
        ("def f(x, y):\n    pass", "def f(x, *, y):\n    pass"),
        ("def f(x, y):\n    pass", "def f(x, y, /):\n    pass"),
        ("def f(x):\n    pass", "def f(*x):\n    pass"),
        ("def f(*x):\n    pass", "def f(**x):\n    pass"),
        ("def f(*, x, y=1):\n    pass", "def f(*, x=1, y):\n    pass"),
        ("def f():\n    pass", "async def f():\n    pass"),
        ("def f():\n    pass", "@cache\ndef f():\n    pass"),
        ("f = lambda x: x", "f = lambda *x: x"),
        ("f'{x:.2f}'", "f'{x:.3f}'"),
        ("f'{x}'", "f'{x!r}'"),
        ("x = [y for y in z]", "x = {y for y in z}"),
        ("x = [y for y in z if y]", "x = [y for y in z]"),
        ("x = [y for y in z for w in y]", "x = [w for y in z for w in y]"),
        ("x += 1", "x -= 1"),
        ("a < b", "a <= b"),
        ("if x:\n    y()\nelse:\n    z()", "if x:\n    y()\nz()"),
        ("class C(A):\n    pass", "class C(B):\n    pass"),
        ("class C(metaclass=A):\n    pass", "class C:\n    pass"),
        ("class C:\n    x: ClassVar[int] = 1", "class C:\n    x: int = 1"),
        ("class C:\n    x: 'dataclasses.InitVar' = 1", "class C:\n    x: InitVar[int] = 1"),
        ("class C:\n    x: int\n    y: int", "class C:\n    y: int\n    x: int"),
        ("with a as b:\n    pass", "with b as a:\n    pass"),
        ("try:\n    x()\nexcept A:\n    pass", "try:\n    x()\nexcept B:\n    pass"),
        ("match x:\n    case [a, *b]:\n        pass", "match x:\n    case [a, b]:\n        pass"),
        ("match x:\n    case {'k': a, **b}:\n        pass", "match x:\n    case {'k': a}:\n        pass"),
        ("def f():\n    global x\n    x = 1", "def f():\n    x = 1"),
        ("x.a", "x.b"),
        ("x[1:2]", "x[1:]"),
        ("def f():\n    yield 1", "def f():\n    return 1"),
        ("assert x", "assert y"),
    ],
)
def test_another_computation_has_another_form(first, second):
    assert form(first).digest != form(second).digest


# --- Scopes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "def f(outer):\n    return outer",
        "def f(*outer):\n    return outer",
        "def f(*, outer=1):\n    return outer",
        "def f(**outer):\n    return outer",
        "def f():\n    outer = 1\n    return outer",
        "def f():\n    for outer in x:\n        outer()",
        "def f():\n    with x as outer:\n        outer()",
        "def f():\n    try:\n        pass\n    except E as outer:\n        outer()",
        "def f():\n    match x:\n        case [outer, *rest]:\n            outer()",
        "def f():\n    match x:\n        case {'k': 1, **outer}:\n            outer()",
        "def f():\n    match x:\n        case int() as outer:\n            outer()",
        "def f():\n    if (outer := x):\n        outer()",
        "def f():\n    [outer := y for y in x]\n    outer()",
        "def f():\n    def outer():\n        pass\n    outer()",
        "def f():\n    class outer:\n        pass\n    outer()",
        "def f():\n    import outer\n    outer()",
        "def f():\n    outer = 1\n    def g():\n        return outer\n    return g",
        "def f():\n    outer = 1\n    def g():\n        nonlocal outer\n        outer = 2\n    return g",
        "x = [outer for outer in y]",
        "x = {outer: 1 for outer in y}",
        "x = lambda outer: outer",
        "class C:\n    outer = 1\n    x = outer",
    ],
)
def test_a_name_that_is_bound_inside_is_not_the_one_outside(source):
    assert own_names(source) == set()


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    return outer",
        "def f(x=outer):\n    return x",
        "def f(outer=outer):\n    return outer",
        "def f(x=lambda outer: outer):\n    return outer()",
        "@outer\ndef f(outer):\n    pass",
        "def f():\n    global outer\n    outer = 1",
        "def f():\n    outer = 1\n    def g():\n        global outer\n        return outer()",
        "def f():\n    def g():\n        return outer\n    return g",
        "def f():\n    def g():\n        outer = 1\n    return outer",
        "def f():\n    [outer for outer in x]\n    return outer",
        "x = [outer for outer in outer]",
        "x = [y for y in x for outer in outer(y)] + [outer]",
        "x = lambda y=outer: y",
        "class C(outer):\n    pass",
        "class C:\n    outer = 1\n    def f(self):\n        return outer",
        "class C:\n    outer = 1\n    x = [outer for _ in y]",
        "class C:\n    x: int = outer",
        "class C:\n    x = field(default_factory=outer)",
        "class C(x, metaclass=outer):\n    pass",
        "f'{outer}'",
        "f'{x:{outer}}'",
        "x = outer.y.z",
        "outer['k'] = 1",
        "outer |= {}",
        "del outer",
        "async def f():\n    async with outer() as x:\n        pass",
        "def f():\n    try:\n        pass\n    except outer:\n        pass",
        "def f():\n    match x:\n        case outer.A:\n            pass",
        "def f():\n    match x:\n        case outer(y):\n            pass",
        "print(*outer, **outer)",
    ],
)
def test_a_name_that_is_not_bound_inside_is_the_one_outside(source):
    assert own_names(source) == {"outer"}


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: outer) -> outer:\n    y: outer = 1",
        "class C:\n    x: outer",
        "def f():\n    import other.outer as x\n    from other import outer as y\n    return x, y",
        'def f():\n    """Calls outer."""',
    ],
)
def test_annotations_and_texts_mean_no_definition(source):
    assert own_names(source) == set()


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("def f():\n    x: int = 1\n    y: list\n    return x", "def f():\n    x = 1\n    return x"),
        ("def f(self):\n    self.x: int = 1", "def f(self):\n    self.x = 1"),
    ],
)
def test_the_type_of_a_variable_changes_nothing(typed, plain):
    assert form(typed) == form(plain)


def test_a_field_of_a_class_is_no_plain_attribute():
    assert form("class C:\n    x: int = 1") != form("class C:\n    x = 1")


# --- What else is noted -----------------------------------------------------------------------------------------


def test_attributes_strings_and_packages_are_noted():
    found = form(
        '''
        import numpy as np
        from scipy import stats
        def f(x):
            """A docstring."""
            "a text that stands alone"
            return np.linalg.norm(x.values()) + stats.norm(x[0].weight).cdf(f"{x.y} and {'more'}", key="text")
        '''
    )
    assert found.packages == {"numpy", "scipy"}
    assert found.strings == {" and ", "more", "text"}
    assert {"linalg", "norm", "values", "weight", "cdf", "y"} <= found.attributes


def test_what_import_lines_load_is_noted():
    assert form("def f():\n    import a.b as c\n    from .d import e").loads == {"a.b", "mpstudy.kinds.d.e"}


# --- What cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, words",
    [
        ("from numpy import *", "from numpy import"),
        ("try:\n    from a import x\nexcept ImportError:\n    from b import x", "'x' is imported as a.x and as b.x"),
        (
            "def f():\n    if y:\n        import a as x\n    else:\n        import b as x",
            "'x' is imported as a and as b",
        ),
        ("def f(x):\n    return eval(x)", "eval hides"),
        ("exec('x = 1')", "exec hides"),
        ("globals()['f']()", "globals hides"),
        ("__import__('x')", "__import__ hides"),
        ("import importlib\nimportlib.import_module('x')", "importlib.import_module hides"),
        ("from importlib import import_module as load\nload('x')", "importlib.import_module hides"),
    ],
)
def test_a_form_that_hides_what_it_reaches_is_refused(source, words):
    with pytest.raises(StudyError, match=words):
        form(source)


def test_a_method_called_eval_hides_nothing():
    assert "eval" in form("model.eval()").attributes
