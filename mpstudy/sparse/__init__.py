"""Unstructured and n:m pruning with weight update: single weights become zero, the shapes stay.

:func:`mpstudy.sparse.sequential.prune_layers` prunes a model by one of :data:`METHODS`, and may follow it by one
of :data:`UPDATES` of the weights that stay.
"""

from . import admm, methods

METHODS = {
    "magnitude": methods.magnitude,
    "wanda": methods.wanda,
    "sparsegpt": methods.sparsegpt,
    "admm": admm.admm,
    "admm-gradual": admm.admm_gradual,
    "masked": methods.masked,
}
UPDATES = {"none": None, "admm": admm.on_mask, "exact": methods.refit}  # (weight, gram, keep) -> weight
