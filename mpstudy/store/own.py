"""The code of a user's own functions, such as a pruner written in a notebook: their sources, those of the functions and
classes of the user's that they name, the plain values among their globals, and what they use of the library.
"""

import inspect
import json
import sys
from collections.abc import Iterable
from functools import partial
from types import CodeType, ModuleType
from typing import Any

from ..errors import StudyError
from .reach import PACKAGE, Library, texts
from .syntax import Form
from .versions import is_installed


class Code:
    """What some functions and classes depend on.

    ``roots``: what they use of the library, to begin a walk with. ``strings``: texts that may name entries of
    registries. ``texts``: sources and values of the user's own.
    """

    def __init__(self, library: Library, functions: Iterable[Any]):
        self.library = library
        self.seen: list[object] = []
        self.roots: list[Form] = []
        self.strings: set[str] = set()
        self.texts: list[str] = []
        for function in functions:
            self._add("", function)

    def _add(self, name: str, value: Any) -> None:
        """Add what a name of the user's code stands for."""
        if isinstance(value, bool | int | float | str | None):
            self._value(name, value)
        if any(value is other for other in self.seen):
            return
        self.seen.append(value)
        if isinstance(value, partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._add(f"{name} partial", part)
        elif isinstance(value, ModuleType):
            self._package(value.__name__)
        elif found := self._table(value):
            self.roots.append(found)
        elif isinstance(value, list | dict | tuple | set) or not hasattr(value, "__module__"):
            self._value(name, value)
        elif _top(value.__module__) == PACKAGE:
            kind = value if hasattr(value, "__qualname__") else type(value)
            self.roots.append(self.library.named(kind.__module__, kind.__qualname__))
        elif is_installed(_top(value.__module__)):
            self._package(value.__module__)
        elif inspect.isclass(value):
            self._class(value)
        elif hasattr(value, "__wrapped__") and not hasattr(value, "__code__"):  # such as `functools.cache`
            self._add(name, value.__wrapped__)
        elif inspect.isroutine(value):
            self._source(value)
        else:  # an object of the user's own class
            self._add(name, type(value))

    def _table(self, value: object) -> Form | None:
        """The definition of the library that is this very object, such as a registry."""
        for name, module in self.library.modules.items():
            made = vars(sys.modules[name]) if name in sys.modules else {}
            for attribute in module.nodes.keys() & made.keys():
                if made[attribute] is value:
                    return self.library.named(name, attribute)
        return None

    def _class(self, cls: type) -> None:
        """A class by its parts: of one that a notebook defines, Python finds no source as a whole."""
        for base in cls.__bases__:
            self._add("base", base)
        for name, part in vars(cls).items():
            function = getattr(part, "__func__", getattr(part, "fget", part))
            if inspect.isfunction(function):
                self._source(function)
            elif not name.startswith("__"):
                self._value(f"{cls.__qualname__}.{name}", part)

    def _source(self, function: Any) -> None:
        """The source of a function, and what it names; then the same of the function that it decorates."""
        try:
            self.texts.append(inspect.getsource(function.__code__))
        except (OSError, TypeError, AttributeError) as error:
            raise StudyError(f"the source of {function!r} cannot be read; define it in a file or notebook") from error
        known = function.__globals__ | inspect.getclosurevars(function).nonlocals
        names = _names(function.__code__)
        self.strings |= _strings(function.__code__)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._add("default", value)
        for name in sorted(names & known.keys()):
            for found in _parts(known[name], names):
                self._add(name, found)
        if hasattr(function, "__wrapped__"):
            self._add("wrapped", function.__wrapped__)

    def _value(self, name: str, value: object) -> None:
        """Numbers, texts and what is made of them; what a model or a table holds is for the step to say."""
        try:
            self.texts.append(json.dumps([name, value], sort_keys=True))
        except (TypeError, ValueError):
            return
        self.strings |= set(texts(value))

    def _package(self, name: str) -> None:
        self.roots.append(Form("", (), frozenset(), frozenset(), frozenset([_top(name)])))


def _names(code: CodeType) -> set[str]:
    """The globals, attributes and closures that a function names, those of the functions inside of it among them."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return {*code.co_names, *code.co_freevars}.union(*map(_names, inner))


def _strings(constant: object) -> set[str]:
    """The texts among the constants of code, and in their tuples."""
    parts = constant.co_consts if isinstance(constant, CodeType) else constant
    if isinstance(parts, str):
        return {parts}
    return set().union(*map(_strings, parts)) if isinstance(parts, tuple | frozenset) else set()


def _parts(value: object, names: set[str]) -> list[object]:
    """A global; of a module of the library, what is named of it."""
    if not isinstance(value, ModuleType) or _top(value.__name__) != PACKAGE:
        return [value]
    found = [getattr(value, name) for name in sorted(names) if hasattr(value, name)]
    return [part for each in found for part in _parts(each, names)]


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]
