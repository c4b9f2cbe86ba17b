"""Which definitions of the library some code can reach, and what they say: the code part of a result's identity.

A *definition* is a function, a method, a class without its methods, or a name that a module assigns. Code reaches what
it names, what that names in turn, and the methods of reached classes whose names occur as an attribute. What is
reached is known by its syntax alone: docstrings, comments, annotations, formatting, import lines and file names are
not in it, and a name of the library stands for the definition it means. So a function can be moved or explained better
without becoming another one.

The rules err on the side of too much. Registries (:class:`mpstudy.registry.Registry`) are the exception that keeps
them useful: of these only the entries are reached whose name occurs in the code or among the run's parameters, so that
a new pruner leaves the results of the others alone. A test compares all this with what a smoke run executes.
"""

import ast
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..errors import StudyError
from .paths import ROOT
from .syntax import Form, Found, Imports, Key, dotted, form_of, imports_of

PACKAGE = "mpstudy"


@dataclass
class Module:
    """What one file defines."""

    name: str
    imports: Imports
    nodes: dict[str, list[ast.AST]] = field(default_factory=lambda: defaultdict(list))
    methods: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # of a class, by its name
    entries: list[tuple[ast.expr, str, list[str]]] = field(default_factory=list)  # registry, entry, its definitions


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
        place. ``roots``: the code from which these were reached, if it names them too.
        """
        lines = sorted(self._line(name, form) for (_, name), form in self.forms.items())
        lines += [self._line("", form) for form in roots]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _line(self, name: str, form: Form) -> str:
        return repr((name, form.digest, [self.forms[key].digest for key in form.names if key in self.forms]))


class Library:
    """The definitions of the package below ``root``, read from its files."""

    def __init__(self, root: Path = ROOT):
        self.modules: dict[str, Module] = {}
        paths = {_module_name(path, root): path for path in sorted((root / PACKAGE).rglob("*.py"))}
        for name, path in paths.items():
            tree = _parsed(path.read_text(encoding="utf-8"), path.name)
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            self.modules[name] = _module(name, tree, imports_of(tree, package))
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

        No key: it is none of the library's names. A module that is used as a value stands for all it defines.
        """
        if target != PACKAGE and not target.startswith(f"{PACKAGE}."):
            return [], 0
        for taken in range(1, len(parts) + 1):
            path = ".".join([target, *parts[1:taken]])
            if path not in self.modules:
                return self.defined(*path.rpartition(".")[::2]), taken
        return [(path, name) for name in self.modules[path].nodes], len(parts)

    def defined(self, module: str, name: str) -> list[Key]:
        """The definition behind a module's name, which the module may have imported itself."""
        if module not in self.modules:
            return []
        if name in self.modules[module].nodes:
            return [(module, name)]
        target = self.modules[module].imports.get(name)
        return self.imported(target, [name])[0] if target else []

    def cells(self, sources: Iterable[str], where: str = "source") -> list[Form]:
        """The forms of pieces of code that are executed one after the other, such as the cells of a notebook."""
        trees = [_parsed(source, f"{where}, cell {index}") for index, source in enumerate(sources)]
        names = {name: target for tree in trees for name, target in imports_of(tree, "").names.items()}
        return [form_of(tree.body, Imports("", names), lambda name: None, self.imported) for tree in trees]

    def named(self, module: str, name: str) -> Form:
        """Code that does nothing but name one definition, to begin a walk with."""
        keys = self.defined(module, name.partition(".")[0])  # a method comes with its class
        keys += [(module, name)] if "." in name else []
        if not keys or any(key[1] not in self.modules[key[0]].nodes for key in keys):
            raise StudyError(f"the library defines no {module}.{name}")
        return Form("", tuple(keys), frozenset(), frozenset(), frozenset())


class _Walk:
    """The closure of what is reached."""

    def __init__(self, library: Library, strings: Iterable[str]):
        self.library, self.found, self.waiting = library, {}, []
        self.attributes, self.strings, self.packages = set(), set(strings), set()

    def add(self, form: Form) -> None:
        self.waiting += form.names
        self.attributes |= form.attributes
        self.strings |= form.strings
        self.packages |= form.packages

    def finish(self) -> Reached:
        while self.waiting:
            while self.waiting:
                key = self.waiting.pop()
                if key not in self.found:
                    self.found[key] = self.library.form(key)
                    self.add(self.found[key])
            self.waiting = [key for key in self._implied() if key not in self.found]
        packages = frozenset(self.packages - sys.stdlib_module_names - {PACKAGE})
        return Reached(self.found, packages, frozenset(self.strings))

    def _implied(self) -> Iterator[Key]:
        """Methods of reached classes, named entries of reached registries, and what acts when a file is loaded."""
        for name, module in self.library.modules.items():
            reached = [key[1] for key in self.found if key[0] == name]
            if reached and "<effects>" in module.nodes:
                yield name, "<effects>"
            for cls in reached:
                for method in module.methods.get(cls, ()):
                    if method in self.attributes:
                        yield name, f"{cls}.{method}"
            for registry, entry, definitions in module.entries:
                keys = self._registry(module, registry)
                if any(key in self.found for key in keys) and self._is_named(entry):
                    yield from ((name, definition) for definition in definitions)

    def _registry(self, module: Module, registry: ast.expr) -> list[Key]:
        parts = dotted(registry)
        if parts[0] in module.nodes:
            return [(module.name, parts[0])]
        target = module.imports.get(parts[0])
        return self.library.imported(target, parts)[0] if target else []

    def _is_named(self, entry: str) -> bool:
        return entry in self.strings or any(text.startswith(f"{entry}-") for text in self.strings)


@cache
def library(root: Path = ROOT) -> Library:
    """The library as its files are now; read once in a process."""
    return Library(root)


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parsed(source: str, where: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise StudyError(f"{where} is not valid Python: {error.msg} (line {error.lineno})") from error


def _module(name: str, tree: ast.Module, imports: Imports) -> Module:
    module = Module(name, imports)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            _add_named(module, node)
        elif isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
            continue
        elif entry := _addition(node):
            registry, text = entry
            module.nodes[f"<{text}>"].append(node)
            module.entries.append((registry, text, [f"<{text}>"]))
        else:
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and _is_assigned(part, node)}
            acts = not names or isinstance(node, ast.For | ast.While | ast.With)
            for target in sorted(names) + ["<effects>"] * acts:
                module.nodes[target].append(node)
    return module


def _add_named(module: Module, node) -> None:
    """A function or class, what registers it, and the methods of a class of our own."""
    kept = []
    for decorator in node.decorator_list:
        if entry := _registration(decorator):
            registry, text = entry
            module.nodes[f"<{text}>"].append(decorator)
            module.entries.append((registry, text, [f"<{text}>", node.name]))
        else:
            kept.append(decorator)
    node.decorator_list = kept
    if isinstance(node, ast.ClassDef) and not node.bases and not node.keywords:
        for method in [part for part in node.body if _is_method(part)]:
            node.body.remove(method)
            module.methods[node.name].append(method.name)
            module.nodes[f"{node.name}.{method.name}"].append(method)
    module.nodes[node.name].append(node)


def _is_method(node) -> bool:
    """Whether a part of a class is reached by its name alone; Python itself calls those with underscores around."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__")


def _registration(node: ast.expr) -> tuple[ast.expr, str] | None:
    """Registry and name of the decorator ``@REGISTRY.register("name", ...)``."""
    return _entry(node, "register")


def _addition(node: ast.stmt) -> tuple[ast.expr, str] | None:
    """Registry and name of the statement ``REGISTRY.add("name", ...)``."""
    return _entry(node.value, "add") if isinstance(node, ast.Expr) else None


def _entry(node: ast.expr, method: str) -> tuple[ast.expr, str] | None:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    if called and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        return node.func.value, node.args[0].value
    return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_assigned(name: ast.Name, statement: ast.stmt) -> bool:
    """Whether a statement of a module gives the name a value, or a part of one (``TABLE["key"] = value``)."""
    if isinstance(name.ctx, ast.Store):
        return True
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return any(isinstance(t, ast.Subscript | ast.Attribute) and dotted_root(t) == name.id for t in targets if t)


def dotted_root(node: ast.expr) -> str | None:
    """The name that ``a.b["c"].d`` begins with."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
