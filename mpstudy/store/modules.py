"""What one file of the library defines, by name: functions, classes, methods, assigned names, entries of registries."""

import ast
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from ..errors import StudyError
from .syntax import Imports, bindings, dotted, imports_of

EFFECTS = "<effects>"  # what a file does when it is loaded beside giving names their values
ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign)


@dataclass
class Module:
    """What one file defines."""

    name: str
    imports: Imports
    nodes: dict[str, list[ast.AST]] = field(default_factory=lambda: defaultdict(list))
    methods: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # of a class, by its name
    entries: list[tuple[list[str], str, str]] = field(default_factory=list)  # registry, entry, its definition


def read_module(name: str, source: str, is_package: bool) -> Module:
    """The definitions in the source of the module ``name``; a form that cannot be followed raises StudyError."""
    tree = parsed(source, name)
    try:
        module = Module(name, imports_of(tree, name if is_package else name.rpartition(".")[0]))
        for node in tree.body:
            _add(module, node)
    except StudyError as error:
        raise StudyError(f"{name}: {error}") from error
    if both := module.nodes.keys() & module.imports.names.keys():
        raise StudyError(f"{name}: {min(both)!r} is imported and defined; give them different names")
    return module


def parsed(source: str, where: str) -> ast.Module:
    """The syntax tree of a source; StudyError if it is not Python."""
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise StudyError(f"{where} is not valid Python: {error.msg} (line {error.lineno})") from error


def _add(module: Module, node: ast.stmt) -> None:
    """Add a statement under the names it defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        _add_named(module, node)
    elif isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
        return
    elif entry := _addition(node):
        registry, text = entry
        module.nodes[f"<{text}>"].append(node)
        module.entries.append((registry, text, f"<{text}>"))
    else:
        names = _assigned(node) - module.imports.names.keys()
        acts = not names or not isinstance(node, ASSIGNMENTS) or names == {"_"}
        for target in sorted(names) + [EFFECTS] * acts:
            module.nodes[target].append(node)


def _add_named(module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
    """A function or class, what registers it, and the methods of a class of our own."""
    kept = []
    for decorator in node.decorator_list:
        if entry := _registration(decorator):
            registry, text = entry
            module.nodes[f"<{text}>"] += [decorator, ast.Name(node.name, ast.Load())]
            module.entries.append((registry, text, f"<{text}>"))
        else:
            kept.append(decorator)
    node.decorator_list = kept
    if isinstance(node, ast.ClassDef) and _is_divisible(node):
        for method in [part for part in node.body if _is_method(part)]:
            node.body.remove(method)
            module.methods[node.name].append(method.name)
            module.nodes[f"{node.name}.{method.name}"].append(method)
    module.nodes[node.name].append(node)


def _is_divisible(node: ast.ClassDef) -> bool:
    """Whether methods of a class are only reached by their names: nothing is known of bases and decorators, and the
    body may use a method itself.
    """
    if node.bases or node.keywords or not all(_is_dataclass(decorator) for decorator in node.decorator_list):
        return False
    methods = {part.name for part in node.body if _is_method(part)}
    return not methods & {name for part in node.body for name in _used_in_body(part)}


def _used_in_body(part: ast.stmt) -> set[str]:
    """The names that a part of a class uses when the class is made; a property's setter names the property itself."""
    if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
    outside = [*part.decorator_list, *part.args.defaults, *filter(None, part.args.kw_defaults)]
    return {n.id for node in outside for n in ast.walk(node) if isinstance(n, ast.Name)} - {part.name}


def _is_dataclass(decorator: ast.expr) -> bool:
    return dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)[-1:] == ["dataclass"]


def _is_method(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Whether a part of a class is reached by its name alone; Python itself calls those with underscores around."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__")


def _registration(node: ast.expr) -> tuple[list[str], str] | None:
    """Registry and name of the decorator ``@REGISTRY.register("name", ...)``."""
    found = _entry(node, "register")
    last = node.func if isinstance(node, ast.Call) else node
    if not found and isinstance(last, ast.Attribute) and last.attr == "register":
        raise StudyError(f'`@{ast.unparse(node)}`: a registration reads `@REGISTRY.register("name", ...)`')
    return found


def _addition(node: Any) -> tuple[list[str], str] | None:
    """Registry and name of the statement ``REGISTRY.add("name", record)``."""
    found = _entry(node.value, "add") if isinstance(node, ast.Expr) else None
    return found if found and len(node.value.args) == 2 else None


def _entry(node: Any, method: str) -> tuple[list[str], str] | None:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    if called and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        registry = dotted(node.func.value)
        return (registry, node.args[0].value) if registry else None
    return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _assigned(statement: ast.stmt) -> set[str]:
    """The names to which a statement of a module gives a value, or a part of one (``TABLE["key"] = value``). Functions
    and classes inside of an ``if`` or ``try`` are among them.
    """
    found = {name for name, target in bindings([statement], "").items() if target is None}
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    roots: set = {_root(target) for target in targets if isinstance(target, ast.Subscript | ast.Attribute)}
    return found | (roots - {None})


def _root(node: ast.expr) -> str | None:
    """The name that ``a.b["c"].d`` begins with."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
