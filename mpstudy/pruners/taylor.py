"""Taylor: LLM-Pruner's element-wise first-order importance (arXiv 2305.11627, eq. 5; ``element1``)."""

from ..gradients import mean_gradients, only_trainable
from ..scores import Scores, first_order_scores


def taylor(model, batches, units, *, seed=0) -> Scores:
    """Sum of ``|w * dL/dw|`` over a unit's coupled slices; ``seed`` is not used."""
    weights = units.parameters(model)
    with only_trainable(model, units.names):
        loss, gradients = mean_gradients(model, batches, weights)
    meta = {"pruner": "taylor", "loss": loss, "gradients": len(batches)}
    return first_order_scores(units, weights, gradients, meta)
