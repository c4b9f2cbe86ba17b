"""Taylor: LLM-Pruner's element-wise first-order importance (arXiv 2305.11627, eq. 5; ``element1``)."""

from ..scores import Scores, first_order_scores
from ..shifted import ShiftedLoss


def taylor(model, batches, units, *, seed=0) -> Scores:
    """Sum of ``|w * dL/dw|`` over a unit's coupled slices; ``seed`` is not used."""
    gradients = {}
    loss = ShiftedLoss(model, batches, units)(None, gradients.update)
    meta = {"pruner": "taylor", "loss": loss, "gradients": len(batches)}
    return first_order_scores(units, units.parameters(model), gradients, meta)
