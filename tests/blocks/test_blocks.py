"""Pruners of whole blocks against computations by other ways, on every family."""

import copy
import math

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, same_bits
from helpers.tiny import tiny_model, tokens
from torch.nn import functional

from mpstudy import blocks
from mpstudy.errors import StudyError
from mpstudy.structure import depth
from mpstudy.structure.families import FAMILIES, layers
from mpstudy.structure.plan import Plan

COUNT = 4
BATCHES = [tokens(2, 10, seed=1), tokens(2, 10, seed=2)]


@pytest.fixture(params=sorted(FAMILIES))
def model(request):
    own = {"layer_types": ["sliding_attention", "full_attention"] * 2} if request.param == "gemma3_text" else {}
    return tiny_family(request.param, num_hidden_layers=COUNT, **own)


def loss_of(model, batch):
    """The mean loss in nats by torch's own function."""
    logits = model(input_ids=batch).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def test_ppl_is_the_perplexity_of_a_model_with_the_block_deleted(model):
    before = bits(model)
    scores = blocks.score("block-ppl", model, BATCHES)
    for number in range(COUNT):
        plan = Plan({"blocks": torch.tensor([number])}, {"blocks": COUNT})
        smaller = depth.remove_blocks(copy.deepcopy(model), plan)
        with torch.no_grad():
            expected = math.exp(loss_of(smaller, torch.cat(BATCHES)))
        assert scores.values["blocks"][number].item() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        assert scores.meta["perplexity"] == pytest.approx(math.exp(loss_of(model, torch.cat(BATCHES))), rel=1e-5)
    assert same_bits(model, before) and len(layers(model)) == COUNT


def test_influence_is_one_minus_the_cosine_of_hidden_states(model):
    with torch.no_grad():
        hidden = [model(input_ids=batch, output_hidden_states=True).hidden_states for batch in BATCHES]
    scores = blocks.score("block-influence", model, BATCHES)
    for number in range(COUNT - 1):  # the last of these states is after the last norm
        cosines = []
        for states in hidden:
            x, y = states[number], states[number + 1]
            cosines += ((x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).flatten().tolist()
        expected = 1 - sum(cosines) / len(cosines)
        assert len(cosines) == 40 and scores.values["blocks"][number].item() == pytest.approx(expected, abs=1e-5)
    assert scores.values["blocks"][-1] > 0


def test_a_block_that_does_nothing_has_no_influence():
    model = tiny_model(num_hidden_layers=3)
    for part in (model.model.layers[1].self_attn.o_proj, model.model.layers[1].mlp.down_proj):
        torch.nn.init.zeros_(part.weight)
    values = blocks.score("block-influence", model, BATCHES).values["blocks"]
    assert values[1].abs() < 1e-12 and values[0] > 1e-3 and values[2] > 1e-3


def test_taylor_adds_the_batches_before_the_absolute_value(model):
    before, expected, apart = bits(model), [], []
    scores = blocks.score("block-taylor", model, BATCHES)
    assert same_bits(model, before)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    gradients = []
    for batch in BATCHES:
        model.zero_grad()
        loss_of(model, batch).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for number in range(COUNT):
        products = [
            [weight.detach() * of_batch[name] for of_batch in gradients]
            for name, weight in model.named_parameters()
            if f".layers.{number}." in name
        ]
        expected.append(sum(float(((one + two) / 2).abs().sum()) for one, two in products))
        apart.append(sum(float((one.abs() + two.abs()).sum() / 2) for one, two in products))
    assert scores.values["blocks"].tolist() == pytest.approx(expected, rel=1e-4)
    assert all(whole < 0.95 * parts for whole, parts in zip(expected, apart))  # signs do cancel here
    assert scores.meta["gradients"] == 2


@pytest.mark.parametrize("name", sorted(blocks.BLOCK_PRUNERS))
def test_scores_are_one_a_block_and_make_a_plan(name):
    model = tiny_model(num_hidden_layers=8)
    scores = blocks.score(name, model, BATCHES)
    values = scores.values["blocks"]
    assert values.shape == (8,) and values.dtype == torch.float32 and (values > 0).all()
    assert scores.meta["pruner"] == name
    (gone,) = depth.plan_blocks(scores, 0.125).removed["blocks"].tolist()
    assert gone in (4, 5) and values[gone] == values[4:6].min()


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(StudyError, match="unknown pruner of blocks 'taylor'; known: block-"):
        blocks.check_settings("taylor", {})
    with pytest.raises(StudyError, match="pruner 'block-ppl' has no settings, not window"):
        blocks.check_settings("block-ppl", {"window": 3})
