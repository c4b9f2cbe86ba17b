"""Which definitions of the library some code can reach, and what they say: the code part of a result's identity.

A *definition* is a function, a method, a class without its methods, or a name that a module assigns. Code reaches what
it names, what that names in turn, the methods of reached classes whose names occur as an attribute or a text, and the
statements that act when a file is loaded with it. What is reached is known by its syntax alone: docstrings, comments,
annotations, formatting, import lines and file names are not in it, and a name of the library stands for the definition
it means. So a function can be moved or explained better without becoming another one.

The rules err on the side of too much. Registries (:class:`mpstudy.registry.Registry`) are the exception that keeps
them useful: of these only the entries are reached whose name occurs in the code or among the run's parameters, so that
a new pruner leaves the results of the others alone. A test compares all this with what a smoke run executes.
"""

import ast
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import StudyError
from .modules import EFFECTS, Module, parsed, read_module
from .paths import ROOT
from .syntax import Form, Found, Key, form_of, imports_of

PACKAGE = "mpstudy"


@dataclass(frozen=True)
class Reached:
    """What some code depends on: definitions by their key, and the top-level names of the packages they import."""

    forms: dict[Key, Form]
    packages: frozenset[str]
    strings: frozenset[str]

    def digests(self) -> dict[str, list[str]]:
        """The content of the definitions by name, without the names of files: equal names are told apart by content."""
        found = defaultdict(list)
        for (_, name), form in self.forms.items():
            found[name].append(form.digest)
        return {name: sorted(digests) for name, digests in sorted(found.items())}

    def wiring(self, roots: Iterable[Form] = ()) -> str:
        """A digest of which definition names which: it changes when one of two with the same name takes the other's
        place. ``roots``: the code from which these were reached.
        """
        labels = self._labels()
        lines = sorted(labels.values()) + [_labelled(form, labels) for form in roots]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _labels(self) -> dict[Key, str]:
        """A digest of each definition with all it leads to, by colour refinement until no two more are told apart."""
        labels = {key: form.digest for key, form in self.forms.items()}
        while True:
            finer = {key: _labelled(form, labels) for key, form in self.forms.items()}
            if len(set(finer.values())) == len(set(labels.values())):
                return finer
            labels = finer


def _labelled(form: Form, labels: dict[Key, str]) -> str:
    text = " ".join([form.digest, *(labels[key] for key in form.names if key in labels)])
    return hashlib.sha256(text.encode()).hexdigest()


class Library:
    """The definitions of the package below ``root``, read from its files."""

    def __init__(self, root: Path = ROOT):
        self.modules: dict[str, Module] = {}
        for path in sorted((root / PACKAGE).rglob("*.py")):
            name, is_package = _module_name(path, root), path.name == "__init__.py"
            self.modules[name] = read_module(name, path.read_text(encoding="utf-8"), is_package)
        self._forms: dict[Key, Form] = {}

    def reached(self, roots: Iterable[Form], strings: Iterable[str] = ()) -> Reached:
        """Everything that ``roots`` reach; ``strings`` name entries of registries beside those in the code."""
        walk = _Walk(self, strings)
        for form in roots:
            walk.add(form)
        return walk.finish()

    def form(self, key: Key) -> Form:
        """The form of a definition."""
        if key not in self._forms:
            module = self.modules[key[0]]
            own = lambda name: (module.name, name) if name in module.nodes else None  # noqa: E731
            self._forms[key] = form_of(module.nodes[key[1]], module.imports, own, self.imported)
        return self._forms[key]

    def imported(self, target: str, parts: list[str]) -> Found:
        """What the dotted name ``parts`` stands for when its first part is bound to the import ``target``.

        No key: it is none of the library's names. A module that is used as a value stands for all it defines. A name
        of the library that cannot be found raises :class:`StudyError`.
        """
        if target.partition(".")[0] != PACKAGE:
            return [], 0
        head, rest = self._split(target)
        for index, name in enumerate(rest + parts[1:], start=1):
            submodule = f"{head}.{name}"
            if keys := self._bound(head, name):
                return keys, max(index - len(rest) + 1, 1)
            if submodule not in self.modules:
                if name.startswith("__"):  # such as `__name__`, which Python gives to a module
                    return [], 0
                raise StudyError(f"{head} defines no {name!r} at the top of its file")
            head = submodule
        return [(head, name) for name in self.modules[head].nodes], len(parts)

    def _split(self, target: str) -> tuple[str, list[str]]:
        """The module that an import line asks for a name, and what it asks for."""
        head, rest = target.rpartition(".")[0], [target.rpartition(".")[2]]
        while head and head not in self.modules:
            head, _, name = head.rpartition(".")
            rest.insert(0, name)
        return (head, rest) if head else (target, [])

    def defined(self, module: str, name: str) -> list[Key]:
        """The definition behind a module's name, which the module may have imported itself; StudyError if none is."""
        found = self._bound(module, name) if module in self.modules else []
        if not found:
            raise StudyError(f"the library defines no {module}.{name}")
        return found

    def _bound(self, module: str, name: str) -> list[Key]:
        """The definitions that a module itself gives the name; none for its submodules."""
        own = self.modules[module]
        if name in own.nodes:
            return [(module, name)]
        target = own.imports.get(name)
        if target and target != f"{module}.{name}":
            return self.imported(target, [name])[0]
        late = "__getattr__" in own.nodes and f"{module}.{name}" not in self.modules and not name.startswith("__")
        return [(module, "__getattr__")] if late else []

    def cells(self, sources: Iterable[str], where: str = "source") -> list[Form]:
        """The forms of pieces of code that are executed one after the other, such as the cells of a notebook."""
        trees = [parsed(source, f"{where}, cell {index}") for index, source in enumerate(sources)]
        try:
            imports = imports_of(ast.Module([node for tree in trees for node in tree.body], []), "")
            return [form_of(tree.body, imports, lambda name: None, self.imported) for tree in trees]
        except StudyError as error:
            raise StudyError(f"{where}: {error}") from error

    def named(self, module: str, name: str) -> Form:
        """Code that does nothing but name one definition, to begin a walk with."""
        keys = self.defined(module, name.partition(".")[0])  # a method comes with its class
        keys += [(module, name)] if name in self.modules[module].nodes else []
        return Form("", tuple(dict.fromkeys(keys)), frozenset(), frozenset(), frozenset())


class _Walk:
    """The closure of what is reached."""

    def __init__(self, library: Library, strings: Iterable[str]):
        self.library = library
        self.found: dict[Key, Form] = {}
        self.waiting: list[Key] = []
        self.loaded: set[str] = set()
        self.attributes: set[str] = set()
        self.strings: set[str] = set()
        self.packages: set[str] = set()
        self.named: set[str] = set()
        self._read(strings)

    def add(self, form: Form) -> None:
        self.waiting += form.names
        self.attributes |= form.attributes
        self._read(form.strings)
        self.packages |= form.packages
        for target in form.loads:
            self._load(target)

    def _read(self, strings: Iterable[str]) -> None:
        """Note texts and the entries of registries that they name: ``noise`` is named by ``noise-1e-2``."""
        for text in strings:
            self.strings.add(text)
            self.named |= {text[:end] for end in (*(at for at, sign in enumerate(text) if sign == "-"), len(text))}

    def finish(self) -> Reached:
        while self.waiting or self._find_implied():
            key = self.waiting.pop()
            if key not in self.found:
                self._load(key[0])
                self.found[key] = self.library.form(key)
                self.add(self.found[key])
        packages = frozenset(self.packages - sys.stdlib_module_names - {PACKAGE})
        return Reached(self.found, packages, frozenset(self.strings))

    def _find_implied(self) -> bool:
        """Wait for what is reached without being named; whether there is more of it."""
        self.waiting = [key for key in self._implied() if key not in self.found]
        return bool(self.waiting)

    def _load(self, target: str) -> None:
        """Note the modules that are loaded with the dotted name ``target``, and those that they load."""
        parts = target.split(".")
        for name in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if name in self.library.modules and name not in self.loaded:
                self.loaded.add(name)
                for other in self.library.modules[name].imports.loads:
                    self._load(other)

    def _implied(self) -> Iterator[Key]:
        """Methods of reached classes, named entries of reached registries, and what acts when a file is loaded."""
        words = self.attributes | self.strings  # `getattr` takes the name as a text
        for name, module in self.library.modules.items():
            if name in self.loaded and EFFECTS in module.nodes:
                yield name, EFFECTS
            for cls, methods in module.methods.items():
                if (name, cls) in self.found:
                    yield from ((name, f"{cls}.{method}") for method in methods if method in words)
            for registry, entry, definition in module.entries:
                keys = self._registry(module, registry)
                named = entry in self.named and any(key in self.found for key in keys)
                if named or (not keys and name in self.loaded):  # a registry of others may call it at any time
                    yield name, definition

    def _registry(self, module: Module, parts: list[str]) -> list[Key]:
        if parts[0] in module.nodes:
            return [(module.name, parts[0])]
        target = module.imports.get(parts[0])
        return self.library.imported(target, parts)[0] if target else []


def texts(value: Any) -> list[str]:
    """All texts in a JSON-able value, the keys of dictionaries among them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [text for part in value for text in texts(part)] if isinstance(value, list | tuple) else []


@cache
def library(root: Path = ROOT) -> Library:
    """The library as its files are now; read once in a process."""
    return Library(root)


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
