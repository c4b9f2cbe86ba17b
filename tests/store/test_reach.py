"""Code reaches what can run because of it; what is reached is known by its content and by what it names."""

import pytest
from helpers.packages import names, package, reach

from mpstudy.errors import StudyError
from mpstudy.store.reach import Library


def reaches(tmp_path, files: dict[str, str], code: str, *strings: str) -> set[str]:
    """What a cell reaches in a package of these files."""
    return names(package(tmp_path, files), code, *strings)


# --- Names ------------------------------------------------------------------------------------------------------

A = {"a.py": "def f():\n    return g()\ndef g():\n    return LIMIT\ndef h():\n    pass\nLIMIT = 1\n"}
ALL = {"a.f", "a.g", "a.LIMIT"}


@pytest.mark.parametrize(
    "code",
    [
        "from mpstudy.a import f",
        "import mpstudy.a",
        "import mpstudy",
        "f = 1\nf()",
        "'from mpstudy.a import f'",
        "x.a.f()",
    ],
)
def test_what_is_not_named_is_not_reached(tmp_path, code):
    assert reaches(tmp_path, A, code) == set()


@pytest.mark.parametrize(
    "code",
    [
        "from mpstudy.a import f\nf()",
        "from mpstudy.a import f as other\nother()",
        "from mpstudy import a\na.f()",
        "from mpstudy import a as b\nb.f()",
        "import mpstudy.a\nmpstudy.a.f()",
        "import mpstudy.a as b\nb.f()",
        "import mpstudy\nmpstudy.a.f()",
        "def local():\n    from mpstudy.a import f\n    return f()",
        "from mpstudy.a import f\nx = [f for _ in y]",
        "from mpstudy.a import f\nx = {'k': f}",
        "from functools import partial\nfrom mpstudy.a import f\nx = partial(f)",
        "from mpstudy.a import f\n@f\ndef local():\n    pass",
        "from mpstudy.a import f\nclass C(Base):\n    x = f",
        "if x:\n    from mpstudy.a import f\nf()",
    ],
)
def test_every_way_to_name_a_function_reaches_it(tmp_path, code):
    assert reaches(tmp_path, A, code) == ALL


@pytest.mark.parametrize("code", ["from mpstudy import a\nuse(a)", "import mpstudy.a as b\nx = [b]"])
def test_a_module_that_is_used_as_a_value_stands_for_all_it_defines(tmp_path, code):
    assert reaches(tmp_path, A, code) == ALL | {"a.h"}


def test_names_are_followed_through_packages_and_files(tmp_path):
    files = {
        "kinds/__init__.py": "from .one import f as g\nfrom . import two\n",
        "kinds/one.py": "from ..a import deep\ndef f():\n    return deep\n",
        "kinds/two.py": "from mpstudy.kinds import one\ndef t():\n    return one.deep\n",
        "a.py": "deep = 1\nother = 2\n",
    }
    assert reaches(tmp_path, files, "from mpstudy.kinds import g\ng()") == {"kinds.one.f", "a.deep"}
    assert reaches(tmp_path, files, "from mpstudy import kinds\nkinds.g.__name__") == {"kinds.one.f", "a.deep"}
    assert reaches(tmp_path, files, "from mpstudy import kinds\nkinds.two.t()") == {"kinds.two.t", "a.deep"}


def test_a_package_may_give_a_function_the_name_of_its_file(tmp_path):
    files = {"kinds/__init__.py": "from .f import f\n", "kinds/f.py": "def f():\n    pass\ndef other():\n    pass\n"}
    assert reaches(tmp_path, files, "from mpstudy import kinds\nkinds.f()") >= {"kinds.f.f"}
    assert reaches(tmp_path, files, "from mpstudy.kinds.f import f\nf()") >= {"kinds.f.f"}


def test_a_package_may_name_its_own_definition_like_a_file(tmp_path):
    files = {"kinds/__init__.py": "from ..a import f\n", "kinds/f.py": "x = 1\n", "a.py": "def f():\n    pass\n"}
    assert reaches(tmp_path, files, "from mpstudy.kinds import f\nf()") == {"a.f"}


def test_a_package_that_makes_names_when_they_are_asked_for(tmp_path):
    late = "def __getattr__(name):\n    from .a import f\n    return f\n"
    files = A | {"__init__.py": late}
    assert reaches(tmp_path, files, "import mpstudy\nmpstudy.anything()") == {"__getattr__"} | ALL
    assert reaches(tmp_path, files, "from mpstudy import anything\nanything()") == {"__getattr__"} | ALL
    assert reaches(tmp_path, files, "import mpstudy\nmpstudy.__name__") == set()


def test_a_name_that_cannot_be_found_is_an_error(tmp_path):
    for code in ("from mpstudy.a import nothing\nnothing()", "from mpstudy import b\nb.f()"):
        with pytest.raises(StudyError, match="source: mpstudy.* defines no '(nothing|b)'"):
            reaches(tmp_path, A, code)


def test_imports_of_functions_count_in_these_functions(tmp_path):
    files = {"a.py": "def f():\n    from .b import x\n    return x\ndef g():\n    return x\n", "b.py": "x = 1\n"}
    assert reaches(tmp_path, files, "from mpstudy.a import f\nf") == {"a.f", "b.x"}
    assert reaches(tmp_path, files, "from mpstudy.a import g\ng") == {"a.g"}


def test_defaults_decorators_and_nested_functions_are_reached(tmp_path):
    source = """
        def f(x=g(), *, y=lambda: h()):
            def inner():
                return k
            return inner
        @wrap
        def d(): ...
        def g(): ...
        def h(): ...
        def wrap(x): ...
        k = 1
    """
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import f\nf") == {"a.f", "a.g", "a.h", "a.k"}
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import d\nd") == {"a.d", "a.wrap"}


def test_annotations_reach_nothing(tmp_path):
    source = "class T: ...\ndef f(x: T) -> T:\n    y: 'T' = x\n    return y\n"
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import f\nf") == {"a.f"}


def test_cells_are_read_together(tmp_path):
    library = package(tmp_path, A)
    cells = library.cells(["from mpstudy.a import f", "f()"])
    assert {name for _, name in library.reached(cells).forms} == {"f", "g", "LIMIT"}


# --- What a module assigns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE |= {'b': g}",
        "TABLE['b'] = g",
        "TABLE['b'].x = g",
        "TABLE.b = g",
        "TABLE.update(b=g)",
        "del TABLE['b'], g.x",
        "for x in (1, 2):\n    TABLE[x] = g",
        "while g():\n    TABLE.pop('x')",
        "with g() as x:\n    TABLE['x'] = x",
        "if LARGE:\n    OTHER = 1\n    TABLE['x'] = g",
        "try:\n    OTHER = g\nexcept KeyError:\n    TABLE['x'] = 1",
        "_ = TABLE.setdefault('x', g)",
        "fill(g)",
        "assert g",
    ],
)
def test_what_acts_on_a_table_is_reached_with_it(tmp_path, statement):
    source = f"LARGE = True\nTABLE = {{}}\ndef fill(x): ...\ndef g(): ...\n{statement}\n"
    assert "a.g" in reaches(tmp_path, {"a.py": source}, "from mpstudy.a import TABLE\nTABLE")


def test_a_table_of_another_file_is_reached_with_what_acts_on_it(tmp_path):
    files = {
        "__init__.py": "",
        "a.py": "TABLE = {}\n",
        "b.py": "from .a import TABLE\nfrom . import c\ndef f():\n    return TABLE\n",
        "c.py": "from .a import TABLE\ndef g(): ...\nTABLE['g'] = g\nTABLE |= {'h': h}\ndef h(): ...\n",
        "d.py": "from .a import TABLE\nTABLE['d'] = 1\n",
    }
    found = reaches(tmp_path, files, "from mpstudy.b import f\nf()")
    assert {"b.f", "a.TABLE", "c.g", "c.h", "c.<effects>"} == found


def test_what_acts_in_a_file_that_a_cell_only_imports_is_reached(tmp_path):
    files = {"a.py": "import mpstudy.b\n", "b.py": "setup()\ndef setup(): ...\n", "kinds/__init__.py": "print(1)\n"}
    files |= {"kinds/one.py": "x = 1\n"}
    assert reaches(tmp_path, files, "import mpstudy.a") == {"b.<effects>", "b.setup"}
    assert reaches(tmp_path, files, "def f():\n    from mpstudy import b") == {"b.<effects>", "b.setup"}
    assert reaches(tmp_path, files, "from mpstudy.kinds.one import x\nx") == {"kinds.<effects>", "kinds.one.x"}


@pytest.mark.parametrize("block", ["if x:\n    {}\nelse:\n    {}", "try:\n    {}\nexcept NameError:\n    {}"])
def test_a_function_may_be_defined_under_a_condition(tmp_path, block):
    define = "def f(): return g"
    files = {"a.py": block.format(define, define) + "\ndef g(): ...\n", "b.py": "from .a import f\ny = f()\n"}
    assert {"a.f", "a.g", "b.y"} <= reaches(tmp_path, files, "from mpstudy.b import y\ny")


def test_the_variable_of_a_comprehension_is_no_name_of_a_file(tmp_path):
    library = package(tmp_path, {"a.py": "TABLE = {x: (lambda: x) for x in 'ab'}\n"})
    assert list(library.modules["mpstudy.a"].nodes) == ["TABLE"]


def test_several_names_of_one_statement(tmp_path):
    files = {"a.py": "x, (y, *z) = f()\ndef f(): ...\n"}
    for name in "xyz":
        assert {"a.f", f"a.{name}"} <= reaches(tmp_path, files, f"from mpstudy.a import {name}\n{name}")


# --- Classes ----------------------------------------------------------------------------------------------------

CLASS = """
    class C:
        limit = used()
        def __init__(self): on_init()
        def run(self): on_run()
        def other(self): on_other()
        @property
        def value(self): on_value()
        @value.setter
        def value(self, new): on_set()
        @classmethod
        def made(cls): on_made()
        @staticmethod
        def plain(): on_plain()
        def __private(self): on_private()
""" + "".join(
    f"\n    def {name}(): ...\n"
    for name in "used on_init on_run on_other on_value on_set on_made on_plain on_private".split()
)


@pytest.mark.parametrize(
    "code, methods",
    [
        ("C()", set()),
        ("C().run()", {"run"}),
        ("x.run", {"run"}),
        ("C().value", {"value", "set"}),
        ("C().value = 1", {"value", "set"}),
        ("C.made()", {"made"}),
        ("C.plain", {"plain"}),
        ("getattr(C(), 'run')()", {"run"}),
        ("operator.methodcaller('other')(C())", {"other"}),
        ("for name in ('run', 'other'):\n    getattr(C(), name)()", {"run", "other"}),
    ],
)
def test_methods_are_reached_by_their_names(tmp_path, code, methods):
    found = reaches(tmp_path, {"a.py": CLASS}, f"from mpstudy.a import C\nC\n{code}")
    used = {name for name in found if name.startswith("a.on_")}
    assert used == {f"a.on_{name}" for name in methods | {"init", "private"}} and "a.used" in found


def test_methods_of_a_class_that_is_not_reached_are_not(tmp_path):
    assert reaches(tmp_path, {"a.py": CLASS}, "x.run()") == set()


@pytest.mark.parametrize(
    "head, body",
    [
        ("class C(Base):", "def run(self): g()"),
        ("class C(metaclass=Base):", "def run(self): g()"),
        ("@register\nclass C:", "def run(self): g()"),
        ("class C:", "def run(self): g()\n    go = run"),
        ("class C:", "def _get(self): g()\n    value = property(_get)"),
        ("class C:", "@single\n    def run(self, x): ...\n    @run.register\n    def _(self, x: int): g()"),
        ("class C:", "if True:\n        def run(self): g()"),
        ("class C:", "class Inner:\n        def run(self): g()"),
        ("class C:", "run = lambda self: g()"),
        ("class C:", "def __enter__(self): g()"),
        ("class C:", "x = [g() for _ in range(2)]"),
    ],
)
def test_a_class_whose_methods_others_may_call_is_kept_whole(tmp_path, head, body):
    source = f"import other\nfrom other import Base, single, register\ndef g(): ...\n{head}\n    {body}\n"
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import C\nC()") == {"a.C", "a.g"}


def test_the_base_of_a_class_is_reached_with_what_super_calls(tmp_path):
    source = """
        class Base:
            def fit(self): on_fit()
            def other(self): on_other()
        class C(Base):
            def run(self): super().fit()
        def on_fit(): ...
        def on_other(): ...
    """
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import C\nC()") == {
        "a.C",
        "a.Base",
        "a.Base.fit",
        "a.on_fit",
    }


def test_the_fields_of_a_dataclass_reach_their_defaults(tmp_path):
    source = """
        from dataclasses import dataclass, field
        def make(): ...
        def check(): ...
        LIMIT = 1
        @dataclass(frozen=True)
        class C:
            x: list = field(default_factory=make)
            y: int = LIMIT
            def __post_init__(self): check()
            def unused(self): other()
        def other(): ...
    """
    found = reaches(tmp_path, {"a.py": source}, "from mpstudy.a import C\nC()")
    assert found == {"a.C", "a.make", "a.LIMIT", "a.check"}


# --- Registries -------------------------------------------------------------------------------------------------

REGISTRY = {
    "registry.py": "class Registry:\n    def __init__(self): self.records = {}\nKINDS = Registry()\n",
    "kinds/__init__.py": "from . import one, two\nfrom ..registry import KINDS\n",
    "kinds/one.py": """
        from ..registry import KINDS
        @KINDS.register("one", look=LOOK)
        def first(): on_one()
        @KINDS.register("one-more")
        def more(): on_more()
        LOOK = 1
        def on_one(): ...
        def on_more(): ...
    """,
    "kinds/two.py": """
        from .. import registry
        registry.KINDS.add("two", record())
        def record(): ...
    """,
}
ONE = {"kinds.one.<one>", "kinds.one.first", "kinds.one.on_one", "kinds.one.LOOK"}


@pytest.mark.parametrize(
    "code, strings, found",
    [
        ("KINDS", (), set()),
        ("KINDS['one']", (), ONE),
        ("KINDS[name]", ("one",), ONE),
        ("KINDS[name]", ("one-5",), ONE),
        ("KINDS[name]", ("ones", "on", "o-one"), set()),
        ("KINDS['two']", (), {"kinds.two.<two>", "kinds.two.record"}),
        ("KINDS['one-more']", (), ONE | {"kinds.one.<one-more>", "kinds.one.more", "kinds.one.on_more"}),
    ],
)
def test_entries_of_a_registry_are_reached_by_their_names(tmp_path, code, strings, found):
    registry = {"registry.KINDS", "registry.Registry"}
    assert reaches(tmp_path, REGISTRY, f"from mpstudy.kinds import KINDS\n{code}", *strings) == registry | found


def test_entries_of_a_registry_that_is_not_reached_are_not(tmp_path):
    assert reaches(tmp_path, REGISTRY, "'one'", "two") == set()


def test_a_registered_function_is_reached_by_its_own_name_too(tmp_path):
    assert reaches(tmp_path, REGISTRY, "from mpstudy.kinds.one import first\nfirst()") == {
        "kinds.one.first", "kinds.one.on_one"
    }  # fmt: skip


def test_a_registry_of_others_may_use_all_that_a_loaded_file_registers(tmp_path):
    source = "from other import HOOKS\n@HOOKS.register('x')\ndef f(): g()\ndef g(): ...\ny = 1\n"
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import y\ny") == {"a.y", "a.<x>", "a.f", "a.g"}


def test_a_set_is_no_registry(tmp_path):
    source = "NAMES = set()\nNAMES.add('x')\n"
    assert reaches(tmp_path, {"a.py": source}, "from mpstudy.a import NAMES\nNAMES") == {"a.NAMES", "a.<effects>"}


# --- What cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, words",
    [
        ("from .b import *\n", "mpstudy.a: `from mpstudy.b import"),
        ("from .b import x\ndef x(): ...\n", "mpstudy.a: 'x' is imported and defined"),
        ("try:\n    from .b import x\nexcept ImportError:\n    from .c import x\n", "mpstudy.a: 'x' is imported as"),
        ("@KINDS.register(NAME)\ndef f(): ...\n", "mpstudy.a: `@KINDS.register.NAME.`: a registration reads"),
        ("@f.register\ndef _(x: int): ...\n", "mpstudy.a: `@f.register`: a registration reads"),
        ("def f(:\n", "mpstudy.a is not valid Python: .* .line 1."),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused(tmp_path, source, words):
    with pytest.raises(StudyError, match=words):
        package(tmp_path, {"a.py": source})


def test_a_cell_that_is_no_python_is_named(tmp_path):
    with pytest.raises(StudyError, match="n.ipynb, cell 1 is not valid Python"):
        package(tmp_path, {}).cells(["x = 1", "x ="], "n.ipynb")


def test_an_optional_package_may_be_replaced_by_a_value(tmp_path):
    source = (
        "try:\n    import fast\nexcept ImportError:\n    fast = slow()\ndef slow(): ...\ndef f():\n    return fast.x\n"
    )
    library = package(tmp_path, {"a.py": source})
    found = reach(library, "from mpstudy.a import f\nf()")
    assert found.packages == {"fast"} and ("mpstudy.a", "slow") in found.forms


# --- Packages ---------------------------------------------------------------------------------------------------


def test_the_packages_of_what_is_reached_are_known(tmp_path):
    source = """
        import json
        import numpy as np
        from scipy.stats import norm
        def f(): return np.mean, json
        def g(): return norm
        def h():
            import torch.nn as nn
            return nn
    """
    library = package(tmp_path, {"a.py": source})
    for name, packages in (("f", {"numpy"}), ("g", {"scipy"}), ("h", {"torch"})):
        assert reach(library, f"from mpstudy.a import {name}\n{name}").packages == packages
    assert reach(library, "import pandas as pd\npd.x").packages == {"pandas"}


# --- Content and wiring -----------------------------------------------------------------------------------------


def content(tmp_path, folder: str, files: dict[str, str], code: str, *strings: str) -> tuple:
    """What the code reaches, as an identity holds it."""
    library = package(tmp_path / folder, files)
    cells = library.cells([code])
    found = library.reached(cells, strings)
    return found.digests(), found.wiring(cells), [cell.digest for cell in cells]


def test_a_file_may_be_renamed_and_a_function_moved(tmp_path):
    code = "from mpstudy.{} import f\nf()"
    one = {"a.py": "from .b import g\ndef f():\n    return g()\n", "b.py": "def g():\n    return 1\n"}
    two = {"new/c.py": "def f():\n    return g()\ndef g():\n    return 1\n"}
    assert content(tmp_path, "1", one, code.format("a")) == content(tmp_path, "2", two, code.format("new.c"))


def test_two_definitions_of_one_name_that_swap_places_are_a_change(tmp_path):
    f = "from .{} import g as first\nfrom .{} import g as second\ndef f():\n    return first() - second()\n"
    files = {"b.py": "def g():\n    return 1\n", "c.py": "def g():\n    return 2\n"}
    code = "from mpstudy.a import f\nf()"
    one = content(tmp_path, "1", files | {"a.py": f.format("b", "c")}, code)
    two = content(tmp_path, "2", files | {"a.py": f.format("c", "b")}, code)
    assert one[0] == two[0] and one[1] != two[1]


def test_definitions_that_swap_places_behind_equal_ones_are_a_change(tmp_path):
    """`g` of both files reads the same; what differs lies two names further."""
    files = {f"{name}.py": f"def g():\n    return h()\ndef h():\n    return LIMIT\nLIMIT = {name!r}\n" for name in "bc"}
    code = "from mpstudy.{} import g as first\nfrom mpstudy.{} import g as second\nfirst() - second()"
    one = content(tmp_path, "1", files, code.format("b", "c"))
    two = content(tmp_path, "2", files, code.format("c", "b"))
    assert one[0] == two[0] and one[2] == two[2] and one[1] != two[1]


def test_names_of_a_registry_that_swap_functions_are_a_change(tmp_path):
    source = """
        class Registry: ...
        KINDS = Registry()
        @KINDS.register("{}")
        def f(): return 1
        @KINDS.register("{}")
        def g(): return 2
    """
    code = "from mpstudy.a import KINDS\nKINDS['one'] - KINDS['two']"
    one = content(tmp_path, "1", {"a.py": source.format("one", "two")}, code)
    two = content(tmp_path, "2", {"a.py": source.format("two", "one")}, code)
    assert one[:2] != two[:2]


def test_another_file_changes_nothing(tmp_path):
    code = "from mpstudy.kinds import KINDS\nKINDS['one']"
    more = {
        "kinds/three.py": 'from ..registry import KINDS\n@KINDS.register("three")\ndef third(): ...\n',
        "kinds/__init__.py": "from . import one, two, three\nfrom ..registry import KINDS\n",
    }
    assert content(tmp_path, "1", REGISTRY, code) == content(tmp_path, "2", REGISTRY | more, code)


def test_a_definition_can_be_named_from_outside(tmp_path):
    library = package(tmp_path, A | {"c.py": CLASS, "d.py": "from .c import C\nclass D(C):\n    def run(self): ...\n"})
    assert library.reached([library.named("mpstudy.a", "f")]).forms.keys() == {
        ("mpstudy.a", n) for n in ("f", "g", "LIMIT")
    }
    assert ("mpstudy.c", "on_run") in library.reached([library.named("mpstudy.c", "C.run")]).forms
    assert ("mpstudy.d", "D") in library.reached([library.named("mpstudy.d", "D.run")]).forms
    with pytest.raises(StudyError, match="the library defines no mpstudy.a.nothing"):
        library.named("mpstudy.a", "nothing")


def test_the_project_itself_can_be_read():
    library = Library()
    for module in library.modules.values():
        for name in module.nodes:
            library.form((module.name, name))
