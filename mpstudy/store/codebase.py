"""Which files of the library some code depends on, found by reading its imports."""

import ast
import hashlib
from functools import cache
from pathlib import Path

from ..errors import StudyError
from .paths import ROOT


def imported_files(source: str, where: str = "source", package: str = "", root: Path = ROOT) -> set[Path]:
    """Files of ``<root>/mpstudy`` that Python ``source`` imports, inside functions too, directly or through others.

    ``package`` is the package that relative imports start from. ``mpstudy/__init__.py`` holds only the version and
    is left out.
    """
    waiting, found = _imports(source, where, package, root), set()
    while waiting:
        file = waiting.pop()
        found.add(file)
        package = ".".join(file.relative_to(root).parent.parts)
        waiting |= _imports(file.read_text(encoding="utf-8"), file.name, package, root) - found
    return found


@cache
def library_digest(module: str) -> str:
    """sha256 over ``module`` and every file of the library that it depends on."""
    total = hashlib.sha256()
    for file in sorted(imported_files(f"import {module}")):
        total.update(file.relative_to(ROOT).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _imports(source: str, where: str, package: str, root: Path) -> set[Path]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise StudyError(f"{where} is not valid Python: {error.msg} (line {error.lineno})") from error
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join(parents + ([node.module] if node.module else []))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {file for name in names if name.startswith("mpstudy.") for file in _module_files(root, name)}


def _module_files(root: Path, name: str) -> list[Path]:
    """The file of a module; all files of a package, since a registry may load any of them by name."""
    path = root.joinpath(*name.split("."))
    if path.is_dir():
        return list(path.rglob("*.py"))
    return [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else []
