"""The registries of unstructured pruning: methods, the updates that may follow them, and scores of single weights."""

from collections.abc import Callable
from dataclasses import dataclass

from ..registry import Look, Registry


@dataclass(frozen=True)
class Method:
    """Which weights of a linear layer go, and what becomes of the others: a function ``(weight, gram, target,
    importance) -> weight``.

    ``weight`` is float32 (rows, columns), ``gram`` the Gram matrix ``X^T X`` of the layer's inputs, float32 (columns,
    columns), ``importance`` of the weight's shape for a method that ``takes_scores``. What is pruned is zero; the
    argument is not changed. ``needs_data``: the result depends on ``gram``, that is, on the calibration text.
    """

    function: Callable
    look: Look | None = None
    takes_scores: bool = False
    needs_data: bool = True


@dataclass(frozen=True)
class Update:
    """How the weights that stay make up for those that are gone: ``(weight, gram, keep) -> weight``, of the dense
    weight and the mask ``keep``; None leaves them as the method has them.
    """

    function: Callable | None


@dataclass(frozen=True)
class ElementScore:
    """The gradient g of scores ``|w * g|`` of single weights: ``(model, batches, units, **settings) -> g`` by parameter
    name. A score has the name, the settings and the look of the pruner that sums it over units.
    """

    function: Callable


METHODS = Registry("method", Method)
UPDATES = Registry("update", Update)
ELEMENTWISE = Registry("element-wise score", ElementScore)

UPDATES.add("none", Update(None))
