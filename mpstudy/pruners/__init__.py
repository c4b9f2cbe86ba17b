"""Pruners: one function ``(model, batches, units, *, seed, **settings) -> Scores`` each.

To add one, write the function in a file of its own, register it there (:class:`.registry.Pruner` says what is asked
about it), and import the file here. From then on every command, profile, notebook and figure knows the name.
"""

import inspect
import math
from dataclasses import asdict

import torch

from ..errors import StudyError, check_choice
from ..structure.units import REDUCTIONS
from .registry import PRUNERS

# In the order of the study, which is that of its figures and tables.
# isort: off
from . import random  # noqa: F401
from . import magnitude  # noqa: F401
from . import taylor  # noqa: F401
from . import smoothgrad  # noqa: F401
from . import moreau  # noqa: F401
from . import moreau_release  # noqa: F401
# isort: on

POSITIVE = {"rho", "step_size", "tol", "lr", "lam", "steps", "max_steps", "average_last"}
NON_NEGATIVE = {"sigma", "eta", "std", "soft"}
CHOICES = {"noise": ("relative", "isotropic"), "groups": ("units", "rows"), "solver": ("spectral", "plain")}
CHOICES["reduction"] = tuple(REDUCTIONS)


def score(name: str, model, batches, units, *, seed: int = 0, **settings):
    """Scores of ``units`` by the pruner ``name``.

    ``batches``: int64 tensors (samples, tokens) of calibration text. ``seed``: the pruner's own draws (noise, random
    scores). ``settings``: see the pruner's function. The weights are bit-identical afterwards, also when it raises.
    """
    check_settings(name, settings)
    return PRUNERS[name].function(model, batches, units, seed=seed, **settings)


def defaults(name: str) -> dict:
    """The settings of a pruner and their default values: those of its record, or of its function."""
    if PRUNERS[name].settings is not None:
        return asdict(PRUNERS[name].settings)
    parameters = inspect.signature(PRUNERS[name].function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "seed"}


def check_settings(name: str, settings: dict) -> None:
    """Raise :class:`StudyError` for an unknown pruner or setting, a wrong type, or a value out of range."""
    known = defaults(name)
    for key, value in settings.items():
        check_choice(f"setting of pruner {name!r}", key, known)
        _check_value(name, key, value, known[key])


def _check_device(name: str, value) -> None:
    try:
        torch.zeros((), device=value)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"state_device of pruner {name!r} must be a device of this machine, not {value!r}: {reason}"
        ) from error


def _check_value(name, key, value, default):
    if value is None and default is None:
        return None
    if key == "state_device":
        return _check_device(name, value)
    if key in CHOICES:
        return check_choice(f"{key} of pruner {name!r}", value, CHOICES[key])
    kind = float if default is None else type(default)
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise StudyError(f"{key} of pruner {name!r} must be of type {kind.__name__}, not {value!r}")
    if kind in (int, float) and not math.isfinite(value):
        raise StudyError(f"{key} of pruner {name!r} must be finite, not {value!r}")
    if key in POSITIVE and value <= 0 or key in NON_NEGATIVE and value < 0:
        raise StudyError(f"{key} of pruner {name!r} must be {'>' if key in POSITIVE else '>='} 0, not {value!r}")
