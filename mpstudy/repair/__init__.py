"""Repair: what is done, after a structured mask, to the o and down projections whose inputs it has thinned out.

:func:`repair` removes the units of a plan and repairs layer after layer by one of :data:`REPAIRS`. To add one, write it
in a file of its own, register it there (:class:`.registry.Repair` says what is asked about it), and import the file
here.
"""

from .registry import REPAIRS

# In the order of the study, which is that of its figures and tables.
# isort: off
from . import bias  # noqa: F401
from . import least_squares  # noqa: F401
from . import admm  # noqa: F401
# isort: on

from .layers import check_repair, repair

__all__ = ["REPAIRS", "check_repair", "repair"]
