"""The registry of pruners: one function ``(model, batches, units, *, seed, **settings) -> Scores`` each.

To add one, write the function in a file of its own and name it here.
"""

import inspect
from typing import Annotated, Any

import torch
from pydantic import Field

from ..errors import StudyError, check_choice
from ..parameters import Count, Finite, Flag, NonNegative, Positive, Whole, checked
from ..structure.units import REDUCTIONS
from . import magnitude, moreau, moreau_release, random, smoothgrad, taylor

PRUNERS = {
    "random": random.random,
    "l1": magnitude.l1,
    "l2": magnitude.l2,
    "taylor": taylor.taylor,
    "taylor2": taylor.taylor2,
    "taylor-mix": taylor.taylor_mix,
    "taylor-vector": taylor.taylor_vector,
    "smoothgrad": smoothgrad.smoothgrad,
    "moreau": moreau.moreau,
    "moreau-gs": moreau.moreau_gs,
    "moreau-release": moreau_release.moreau_release,
}
RULES: dict[str, Any] = dict.fromkeys(("rho", "step_size", "tol", "lr", "lam"), Positive)
RULES |= dict.fromkeys(("steps", "max_steps", "average_last"), Count)
RULES |= dict.fromkeys(("sigma", "eta", "std", "soft"), NonNegative)
BY_DEFAULT = {bool: Flag, int: Whole, float: Finite, type(None): Finite}  # for settings that are not named here
CHOICES = {"noise": ("relative", "isotropic"), "groups": ("units", "rows"), "solver": ("spectral", "plain")}
CHOICES["reduction"] = tuple(REDUCTIONS)


def score(name: str, model, batches, units, *, seed: int = 0, **settings):
    """Scores of ``units`` by the pruner ``name``.

    ``batches``: int64 tensors (samples, tokens) of calibration text. ``seed``: the pruner's own draws (noise, random
    scores). ``settings``: see the pruner's function. The weights are bit-identical afterwards, also when it raises.
    """
    check_settings(name, settings)
    return PRUNERS[name](model, batches, units, seed=seed, **settings)


def defaults(name: str) -> dict:
    """The settings of a pruner and their default values."""
    check_choice("pruner", name, PRUNERS)
    parameters = list(inspect.signature(PRUNERS[name]).parameters.values())[3:]
    return {p.name: p.default for p in parameters if p.name != "seed"}


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
    kind = type(default)
    other = Annotated[kind, Field(strict=True, description=f"of type {kind.__name__}")]
    checked(RULES.get(key, BY_DEFAULT.get(kind, other)), f"{key} of pruner {name!r}", value)
