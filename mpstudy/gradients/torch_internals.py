"""What the library takes for granted about the inside of PyTorch; ``tests/test_torch_internals.py`` says "still true".

The node of the graph that multiplies two tensors, named ``MulBackward0``, keeps both of them for its backward pass, and
shows them as ``_saved_self`` and ``_saved_other``. So a product that a layer needs again (down_proj of gate and up)
need not be kept beside its factors. Were this to change, scores would stay what they are and memory would grow.
"""

from typing import Any

import torch


def product_node(x: torch.Tensor) -> Any:
    """The node that made ``x`` of two factors which it keeps; None where ``x`` came about in another way."""
    node: Any = x.grad_fn
    if node is None or node.name() != "MulBackward0" or None in (node._saved_self, node._saved_other):
        return None
    return node


def product(node: Any) -> torch.Tensor:
    """The product of the factors that a :func:`product_node` keeps, formed anew."""
    return node._saved_self * node._saved_other
