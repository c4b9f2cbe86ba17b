"""Pruners: one function ``(model, batches, units, *, seed, **settings) -> Scores`` each.

To add one, write the function in a file of its own, register it there (:class:`.registry.Pruner` says what is asked
about it), and import the file here. From then on every command, profile, notebook and figure knows the name.
"""

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from ..errors import StudyError, check_choice
from ..parameters import Count, Finite, Flag, NonNegative, Positive, Whole, checked
from ..structure.scores import Scores
from ..structure.units import REDUCTIONS, Units
from .registry import PRUNERS as PRUNERS

# In the order of the study, which is that of its figures and tables.
# isort: off
from . import random  # noqa: F401
from . import magnitude  # noqa: F401
from . import taylor  # noqa: F401
from . import taylor_parts  # noqa: F401
from . import smoothgrad  # noqa: F401
from . import moreau  # noqa: F401
from . import moreau_release  # noqa: F401
from . import wanda_sp  # noqa: F401
from . import flap  # noqa: F401
from . import policy_gradient  # noqa: F401
from . import evolution  # noqa: F401
# isort: on

RULES: dict[str, Any] = dict.fromkeys(("rho", "step_size", "tol", "lr", "lam"), Positive)
RULES |= dict.fromkeys(("steps", "max_steps", "average_last"), Count)
RULES |= dict.fromkeys(("sigma", "eta", "std", "soft"), NonNegative)
BY_DEFAULT = {bool: Flag, int: Whole, float: Finite, type(None): Finite}  # for settings that are not named here
CHOICES: dict[str, tuple[str, ...]] = {"noise": ("relative", "isotropic"), "groups": ("units", "rows")}
CHOICES["solver"] = ("spectral", "plain")
CHOICES["reduction"] = tuple(REDUCTIONS)


def score(
    name: str, model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, **settings: Any
) -> Scores:
    """Scores of ``units`` by the pruner ``name``.

    ``batches``: int64 tensors (samples, tokens) of calibration text. ``seed``: the pruner's own draws (noise, random
    scores). ``settings``: see the pruner's function. The weights are bit-identical afterwards, also when it raises.
    """
    check_settings(name, settings)
    return PRUNERS[name].function(model, batches, units, seed=seed, **settings)


def goes_on(name: str) -> bool:
    """Whether the function of a pruner takes ``log`` and ``state`` beside its settings: a long search, which tells how
    far it is and goes on where it was stopped.
    """
    return "state" in inspect.signature(PRUNERS[name].function).parameters


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


def _check_device(name: str, value: Any) -> None:
    try:
        torch.zeros((), device=value)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"state_device of pruner {name!r} must be a device of this machine, not {value!r}: {reason}"
        ) from error


def _check_value(name: str, key: str, value: Any, default: object) -> None:
    if value is None and default is None:
        return None
    if key == "state_device":
        return _check_device(name, value)
    if key in CHOICES:
        return check_choice(f"{key} of pruner {name!r}", value, CHOICES[key])
    kind = type(default)
    other = Annotated[kind, Field(strict=True, description=f"of type {kind.__name__}")]  # type: ignore[valid-type]
    checked(RULES.get(key, BY_DEFAULT.get(kind, other)), f"{key} of pruner {name!r}", value)
