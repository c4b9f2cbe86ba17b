"""A copy of the package and its notebooks that a test may change, and what its runs depend on then."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from mpstudy.runner.fingerprint import fingerprint
from mpstudy.runner.profiles import Profile, load_profile
from mpstudy.runner.status import identities
from mpstudy.store.paths import ROOT
from mpstudy.store.reach import Library


class Copy:
    """The package and the notebooks under ``root``."""

    def __init__(self, root: Path):
        self.root, self.package, self.notebooks = root, root / "mpstudy", root / "notebooks"
        shutil.copytree(ROOT / "mpstudy", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "notebooks", self.notebooks)

    def profile(self, name: str = "smoke") -> Profile:
        return load_profile(name, self.notebooks / "profiles")

    def fingerprints(self, profile: Profile | None = None) -> dict[str, str]:
        """The fingerprint of every run."""
        known = identities(profile or self.profile(), Library(self.root))
        return {name: fingerprint(identity) for name, identity in known.items()}

    def replace(self, file: str, old: str, new: str, count: int = 1) -> None:
        """Change ``count`` places of a file of the package."""
        path = self.package / file
        text = path.read_text()
        assert text.count(old) == count, f"{file} has {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))

    def rewrite(self, change: Callable[[ast.Module], ast.Module]) -> None:
        """Write every file of the package anew from its changed syntax tree, without comments and formatting."""
        for path in self.package.rglob("*.py"):
            path.write_text(ast.unparse(ast.fix_missing_locations(change(ast.parse(path.read_text())))))

    def edit(self, notebook: str, change: Callable[[list[dict]], list[dict]]) -> None:
        """Change the cells of a notebook."""
        path = self.notebooks / f"{notebook}.ipynb"
        content = json.loads(path.read_text())
        content["cells"] = change(content["cells"])
        path.write_text(json.dumps(content))


class WithoutTexts(ast.NodeTransformer):
    """A tree without docstrings and annotations; the kinds of a dataclass's fields stay, for it acts on them."""

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign) and "Var[" not in ast.unparse(node.annotation):
            node.annotation = ast.Name("object", ast.Load())
        if hasattr(node, "body") and isinstance(node.body, list):
            kept = [part for part in node.body if not _is_text(part)]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])
        return node


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
