"""Shared Gram matrices, joint removal by brute force, and errors on other text."""

import copy
from functools import partial
from itertools import combinations

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.sparse import METHODS, joint, refit
from mpstudy.sparse.errors import reconstruction_errors
from mpstudy.sparse.finished import linears_of
from mpstudy.sparse.grams import gram_matrices
from mpstudy.sparse.masks import Target
from mpstudy.sparse.refit import reconstruction_error
from mpstudy.sparse.sequential import prune_layers
from mpstudy.structure.families import FAMILIES
from mpstudy.structure.walk import Walk


def inputs_of(model, linear):
    """All inputs of a linear layer in an ordinary forward pass: (tokens, columns)."""
    found = []
    hook = linear.register_forward_pre_hook(lambda module, given: found.append(given[0].flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=tiny_tokens())
    hook.remove()
    return torch.cat(found)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_gram_matrices_are_of_the_inputs_and_each_is_made_once(kind):
    model = tiny_family(kind)
    linears = linears_of(model, 1)
    grams = gram_matrices(Walk(model, range(1, 2), list(tiny_tokens().split(1))), 1, linears)
    assert set(grams) == set(linears)
    for name, linear in linears.items():
        x = inputs_of(model, linear)
        torch.testing.assert_close(grams[name], x.t() @ x, rtol=1e-4, atol=1e-4)
    if kind == "llama":
        assert len({id(gram) for gram in grams.values()}) == 4 and len(grams) == 7


def test_joint_removal_of_a_pattern_is_brute_force():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(3, 8, generator=generator), torch.randn(60, 8, generator=generator)
    x[:, 1] += 2 * x[:, 0]
    gram = x.t() @ x
    found = joint.joint(weight, gram, Target.parse("2:4"))
    inverse = torch.linalg.inv(gram.double() + refit.DAMP * gram.double().diagonal().mean() * torch.eye(8))

    def loss(pair, row):
        values = weight[row, pair].double()
        return float(values @ torch.linalg.inv(inverse[pair][:, pair]) @ values)

    for row in range(3):
        gone = []
        for start in (0, 4):
            pairs = ([start + i for i in pair] for pair in combinations(range(4), 2))
            gone += min(pairs, key=partial(loss, row=row))
        assert (found[row] == 0).nonzero().flatten().tolist() == gone
        change = -weight[row, gone].double() @ torch.linalg.inv(inverse[gone][:, gone]) @ inverse[gone]
        torch.testing.assert_close(found[row].double(), weight[row].double() + change, rtol=1e-3, atol=1e-4)


def test_joint_removal_of_a_share_ranks_single_weights():
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(4, 6, generator=generator), torch.randn(40, 6, generator=generator)
    gram = x.t() @ x
    inverse = torch.linalg.inv(gram + refit.DAMP * gram.diagonal().mean() * torch.eye(6))
    found = joint.joint(weight, gram, Target(0.5))
    for row in range(4):
        loss = weight[row] ** 2 / inverse.diagonal()
        assert (found[row] == 0).nonzero().flatten().tolist() == sorted(loss.argsort()[:3].tolist())


def test_in_sample_errors_are_those_of_the_pruning():
    """On the calibration text, with the finished model, the errors are those that pruning gave."""
    model = tiny_llama()
    linears = linears_of(model, 0) | linears_of(model, 1)
    dense = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    rows = prune_layers(model, [tiny_tokens()], "0-1", "sparsegpt", Target(0.5))
    before = copy.deepcopy(model.state_dict())
    again = reconstruction_errors(model, dense, [tiny_tokens()], "0-1")
    assert [row["linear"] for row in again] == [row["linear"] for row in rows]
    assert [row["error"] for row in again] == pytest.approx([row["error"] for row in rows], rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    other = reconstruction_errors(model, dense, [tiny_tokens().flip(1)], "0-1")
    assert [row["error"] for row in other] != pytest.approx([row["error"] for row in rows], rel=1e-2)


def test_an_error_on_other_text_by_hand():
    """Of the first layer's q, whose inputs no pruning changes."""
    model = tiny_llama()
    name = "model.layers.0.self_attn.q_proj"
    dense = {each: linear.weight.detach().clone() for each, linear in linears_of(model, 0).items()}
    x = inputs_of(model, model.get_submodule(name))
    prune_layers(model, [tiny_tokens().flip(1)], "0", "wanda", Target(0.5))
    row = reconstruction_errors(model, dense, [tiny_tokens()], "0")[0]
    sparse = model.get_submodule(name).weight.detach()
    lost = ((sparse - dense[name]) @ x.t()).square().sum() / (dense[name] @ x.t()).square().sum()
    assert row["linear"] == name and row["error"] == pytest.approx(float(lost), rel=1e-4)
    assert reconstruction_error(sparse, dense[name], x.t() @ x) == pytest.approx(float(lost), rel=1e-4)


def test_a_pattern_of_too_many_subsets_is_refused():
    with pytest.raises(StudyError, match="16:32 has 601,080,390 subsets a group; joint-removal takes up to 20,000"):
        METHODS["joint-removal"].function(torch.ones(2, 32), torch.eye(32), Target.parse("16:32"), None)
