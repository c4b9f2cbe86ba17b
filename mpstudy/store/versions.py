"""Versions of the packages that computed a result."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version

SHOWING = {"IPython", "matplotlib", "seaborn", "jinja2"}  # these draw what others computed
COMPANIONS = {  # packages that work only through another one's interface, and decide its results too
    "transformers": ("tokenizers", "safetensors"),
    "peft": ("accelerate",),
    "lm_eval": ("datasets", "numpy"),
    "pandas": ("numpy",),
}


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Versions of top-level packages and their companions, by the name of the distribution, read without importing
    one; None where it is not installed. What follows a ``+`` names a build for a device, which is recorded elsewhere.
    """
    names = {name for package in packages for name in (package, *COMPANIONS.get(package, ()))} - SHOWING
    found = {}
    for name in sorted(names):
        distribution = _distributions().get(name, [name])[0]
        found[distribution] = _version(distribution)
    return found


def is_installed(package: str) -> bool:
    """Whether a top-level package is Python's own or of an installed distribution."""
    return package in sys.stdlib_module_names or package in _distributions()


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
