"""Unstructured and n:m pruning with weight update: single weights become zero, the shapes stay.

:func:`mpstudy.sparse.sequential.prune_layers` prunes a model by one of :data:`METHODS`, and may follow it by one
of :data:`UPDATES` of the weights that stay. To add one, write it in a file of its own, register it there, and import
the file here. :func:`mpstudy.sparse.barber.rebuild` then swaps weights between the two sides of the masks.
"""

from .registry import METHODS, UPDATES

# In the order of the study, which is that of its figures and tables.
# isort: off
from . import magnitude  # noqa: F401
from . import wanda  # noqa: F401
from . import sparsegpt  # noqa: F401
from . import admm  # noqa: F401
from . import joint  # noqa: F401
from . import masked  # noqa: F401
from . import refit  # noqa: F401
from . import importance  # noqa: F401
# isort: on

__all__ = ["METHODS", "UPDATES"]
