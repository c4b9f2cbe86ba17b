"""Still true: what mpstudy/torch_internals.py takes for granted. A failure here means that memory grew, not that scores
are wrong.
"""

import torch
from helpers.models import tiny_llama, tiny_tokens

from mpstudy.gradients import shifted
from mpstudy.gradients.torch_internals import product, product_node
from mpstudy.structure.units import prunable_units


def test_a_product_keeps_its_factors_themselves():
    a, b = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    x = a * b
    node = product_node(x)
    assert node is not None and torch.equal(product(node), x)
    kept = {node._saved_self.data_ptr(), node._saved_other.data_ptr()}
    assert kept == {a.data_ptr(), b.data_ptr()}  # no copies, and not x


def test_nothing_else_is_taken_for_a_product_of_two():
    a = torch.randn(3, requires_grad=True)
    for x in (a, a.detach(), a + a, 2.0 * a, a * torch.ones(3), torch.ones(3) * a):
        assert product_node(x) is None


def test_the_input_of_every_down_projection_is_one(monkeypatch):
    """What the memory of a step rests on: of the layers' inputs, those of the width of the MLP are not kept."""
    found = []
    monkeypatch.setattr(shifted, "product_node", lambda x: found.append((x.shape[-1], product_node(x))) or found[-1][1])
    model = tiny_llama(mlp=24)
    shifted.ShiftedLoss(model, [tiny_tokens()], prunable_units(model, "0-1"))(None, lambda block: None)
    wide = [node for width, node in found if width == 24]
    assert len(wide) == 2 and None not in wide and all(node is None for width, node in found if width != 24)
