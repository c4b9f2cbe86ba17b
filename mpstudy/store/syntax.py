"""Code as its syntax alone: the text of a definition in which only what a computer acts on is left.

:func:`form_of` writes a syntax tree without docstrings, comments, annotations, formatting and import lines, names of
imports in full (``numpy.mean`` whatever its alias), and names of the library as the definition they mean.
"""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import StudyError

UNWRITTEN = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}  # fields that change no result
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
NAMING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
HIDING = {"eval", "exec", "globals", "__import__", "importlib.import_module"}  # what these reach cannot be read
FIELD_KINDS = {"ClassVar", "InitVar", "KW_ONLY"}  # annotations on which a dataclass acts
GLOBAL = "global"  # in a scope: the name is that of the module
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Key = tuple[str, str]
Found = tuple[list[Key], int]  # the definitions that a dotted name stands for, and how many of its parts it takes


@dataclass(frozen=True)
class Form:
    """What a piece of code says, and what it names: definitions of the library in the order of their use, attributes,
    string constants, top-level names of imported packages, and the dotted names of what its import lines load.
    """

    text: str
    names: tuple[Key, ...]
    attributes: frozenset[str]
    strings: frozenset[str]
    packages: frozenset[str]
    loads: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the text's sha256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Imports:
    """The names that import lines bind, with the dotted name of what they stand for; ``loads``: what they load."""

    package: str
    names: dict[str, str]
    loads: frozenset[str]

    def get(self, name: str) -> str | None:
        return self.names.get(name)


def imports_of(tree: ast.AST, package: str) -> Imports:
    """The imports of a module or function outside the functions and classes it defines; ``package`` is where its
    relative imports start. A name that is imported from two places raises :class:`StudyError`.
    """
    names: dict[str, str] = {}
    loads: set[str] = set()
    for node in _outside_functions(tree):
        loads |= set(_loaded(node, package))
        for name, target in _imported(node, package):
            if names.setdefault(name, target) != target:
                raise StudyError(f"{name!r} is imported as {names[name]} and as {target}; give them different names")
    return Imports(package, names, frozenset(loads))


def _imported(node: ast.AST, package: str) -> list[tuple[str, str]]:
    """The names that an import line binds, with what they stand for."""
    if isinstance(node, ast.Import):
        heads = [(alias, alias.name.partition(".")[0]) for alias in node.names]
        return [(alias.asname or head, alias.name if alias.asname else head) for alias, head in heads]
    if not isinstance(node, ast.ImportFrom):
        return []
    parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
    base = ".".join(parents + ([node.module] if node.module else []))
    if any(alias.name == "*" for alias in node.names):
        raise StudyError(f"`from {base} import *` does not say what is used; import the names one by one")
    return [(alias.asname or alias.name, f"{base}.{alias.name}") for alias in node.names]


def _loaded(node: ast.AST, package: str) -> list[str]:
    """The dotted names whose modules an import line loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [target for _, target in _imported(node, package)]


def form_of(
    nodes: Sequence[ast.AST],
    imports: Imports,
    own: Callable[[str], Key | None],
    imported: Callable[[str, list[str]], Found],
) -> Form:
    """The form of statements of one file.

    ``own(name)``: the definition of that name in the same file, if there is one. ``imported(target, parts)``: what the
    dotted name ``parts`` stands for when its first part is bound to the import ``target``.
    """
    writer = _Writer(imports, own, imported)
    text = writer.write(nodes)
    return Form(
        text,
        tuple(writer.names),
        frozenset(writer.attributes),
        frozenset(writer.strings),
        frozenset(writer.packages),
        frozenset(writer.loads),
    )


def dotted(node: ast.expr) -> list[str]:
    """``["a", "b"]`` of the expression ``a.b``; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []


class _Writer:
    """Writes a tree and notes what it names. ``scopes``: for each function, class or comprehension around a node the
    names it binds, with the import each stands for, None, or :data:`GLOBAL`, and whether it is a class.
    """

    def __init__(
        self,
        imports: Imports,
        own: Callable[[str], Key | None],
        imported: Callable[[str, list[str]], Found],
    ):
        self.imports, self.own, self.imported = imports, own, imported
        self.names: list[Key] = []
        self.attributes: set[str] = set()
        self.strings: set[str] = set()
        self.packages: set[str] = set()
        self.loads: set[str] = set()
        self.scopes: list[tuple[Mapping[str, str | None], bool]] = []

    def write(self, node: object) -> str:
        if isinstance(node, list):
            node = [part if self.scopes and self.scopes[-1][1] else _untyped(part) for part in node]
            self.loads |= {target for part in node for target in _loaded(part, self.imports.package)}
            return f"[{','.join(self.write(part) for part in node if not _says_nothing(part))}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Name | ast.Attribute) and (parts := dotted(node)):
            return self._name(parts)
        if isinstance(node, FUNCTIONS):
            return self._function(node)
        if isinstance(node, ast.ClassDef):
            return self._class(node)
        if isinstance(node, COMPREHENSIONS):
            return self._comprehension(node)
        if isinstance(node, ast.Attribute):
            self.attributes.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.strings.add(node.value)
        return self._fields(node, node._fields) + _field_kind(node)

    def _fields(self, node: ast.AST, names: Iterable[str]) -> str:
        written = []
        for name in names:
            value = getattr(node, name, None)
            if name not in UNWRITTEN and value is not None and value != []:
                written.append(f"{name}={self.write(value)}")
        return f"{type(node).__name__}({','.join(written)})"

    def _name(self, parts: list[str]) -> str:
        """A dotted name: of the library ("→" and the definition), of a package (in full), or as it stands."""
        local, target = self._bound(parts[0])
        if not local and (key := self.own(parts[0])):
            return self._definitions(parts, [key], 1)
        target = target if local else self.imports.get(parts[0])
        if target:
            keys, taken = self.imported(target, parts)
            if keys:
                return self._definitions(parts, keys, taken)
            self.packages.add(target.partition(".")[0])
        self.attributes |= set(parts[1:])
        written = ".".join([target or parts[0], *parts[1:]])
        if written in HIDING and not (local and not target):
            raise StudyError(f"{written} hides what it reaches; name the functions themselves")
        return written

    def _definitions(self, parts: list[str], keys: list[Key], taken: int) -> str:
        self.names += keys
        self.attributes |= set(parts[taken:])
        meant = keys[0][1] if len(keys) == 1 else "module"
        return ".".join([f"→{meant}", *parts[taken:]])

    def _bound(self, name: str) -> tuple[bool, str | None]:
        """Whether a scope around binds ``name``, and the import it then stands for."""
        for depth, (names, is_class) in enumerate(reversed(self.scopes)):
            if name in names and not (is_class and depth):  # a method does not see the names of its class
                return names[name] != GLOBAL, names[name] if names[name] != GLOBAL else None
        return False, None

    @contextmanager
    def _scope(self, names: Mapping[str, str | None], is_class: bool = False) -> Iterator[None]:
        self.scopes.append((names, is_class))
        yield
        self.scopes.pop()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> str:
        arguments = node.args
        outer = self.write([*arguments.defaults, *(d for d in arguments.kw_defaults if d)])
        outer += self.write(getattr(node, "decorator_list", []))
        body = node.body if isinstance(node.body, list) else [node.body]
        groups = [arguments.posonlyargs, arguments.args, arguments.kwonlyargs]
        groups += [[part] if part else [] for part in (arguments.vararg, arguments.kwarg)]
        order = [[part.arg for part in group] for group in groups]
        with self._scope(dict.fromkeys(sum(order, [])) | bindings(body, self.imports.package)):
            missing = [part is None for part in arguments.kw_defaults]
            kind = type(node).__name__
            return f"{kind}({getattr(node, 'name', '')}{order}{missing}{outer}{self.write(body)})"

    def _class(self, node: ast.ClassDef) -> str:
        outer = self._fields(node, ("name", "bases", "keywords", "decorator_list"))
        with self._scope(bindings(node.body, self.imports.package), is_class=True):
            return f"{outer}{self.write(node.body)}"

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> str:
        first = self.write(node.generators[0].iter)  # outside of the scope that the comprehension opens
        names = {p.id: None for g in node.generators for p in ast.walk(g.target) if isinstance(p, ast.Name)}
        with self._scope(names):
            parts = [self.write(getattr(node, name)) for name in ("elt", "key", "value") if hasattr(node, name)]
            for index, generator in enumerate(node.generators):
                parts.append(self._fields(generator, ("target", "ifs", "is_async")))
                parts.append(self.write(generator.iter) if index else first)
        return f"{type(node).__name__}({','.join(parts)})"


def _untyped(node: ast.AST) -> ast.AST:
    """``x = value`` for ``x: T = value``, which outside a class does the same, and nothing for ``x: T``."""
    if not isinstance(node, ast.AnnAssign):
        return node
    return ast.Assign([node.target], node.value) if node.value else ast.Pass()


def _says_nothing(node: object) -> bool:
    """Import lines, whose names are written where they are used, and texts that stand alone, such as docstrings."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)


def _field_kind(node: ast.AST) -> str:
    """What the annotation of a dataclass's field says about more than its type."""
    if not isinstance(node, ast.AnnAssign):
        return ""
    words: set = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(node.annotation)}
    return "".join(sorted(words & FIELD_KINDS))


def bindings(body: list[Any], package: str) -> dict[str, str | None]:
    """The names that the statements of a function or class bind there, with the import each stands for or None."""
    tree = ast.Module(body, [])
    found: dict[Any, str | None] = {}
    elsewhere: dict[str, str | None] = {}
    for node in _outside_functions(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere |= dict.fromkeys(node.names, GLOBAL if isinstance(node, ast.Global) else None)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
        elif isinstance(node, NAMING):
            found[node.name] = None
        elif isinstance(node, ast.MatchMapping):
            found[node.rest] = None
    found |= imports_of(tree, package).names
    found = {name: target for name, target in found.items() if name and name not in elsewhere}
    return found | {name: GLOBAL for name, scope in elsewhere.items() if scope}


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of ``tree`` outside the functions, classes and comprehensions in it, and these themselves."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if isinstance(node, COMPREHENSIONS):  # of these only what `:=` binds reaches out
            yield from (part.target for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
        elif not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield from _outside_functions(node)
