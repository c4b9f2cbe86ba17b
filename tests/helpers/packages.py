"""Small packages in temporary folders, for the tests of what code reaches."""

import textwrap
from pathlib import Path

from mpstudy.store.reach import Library, Reached


def package(root: Path, files: dict[str, str]) -> Library:
    """The library ``mpstudy`` of these files below ``root``; every folder in it becomes a package."""
    for name, source in files.items():
        path = root / "mpstudy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    (root / "mpstudy").mkdir(parents=True, exist_ok=True)
    for folder in [root / "mpstudy", *(path for path in (root / "mpstudy").rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    return Library(root)


def reach(library: Library, code: str, *strings: str) -> Reached:
    """What a cell of code reaches."""
    return library.reached(library.cells([textwrap.dedent(code)]), strings)


def names(library: Library, code: str, *strings: str) -> set[str]:
    """The definitions that a cell of code reaches, as ``module.name`` without the package."""
    keys = reach(library, code, *strings).forms
    return {f"{module.removeprefix('mpstudy').lstrip('.')}.{name}".lstrip(".") for module, name in keys}
