"""SliceGPT against the dense model in a projection, computed with nothing rotated, on every family that it takes."""

import copy

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, same_bits
from helpers.tiny import tiny_model, tokens
from torch import nn

from mpstudy import blocks, pruners
from mpstudy.errors import StudyError
from mpstudy.evaluation import cost
from mpstudy.slicing.config import OFFSETS, REASONS, check_sliceable
from mpstudy.slicing.slicegpt import kept_size, slice_model
from mpstudy.structure import depth, surgery
from mpstudy.structure.families import FAMILIES, layers
from mpstudy.structure.plan import make_plan
from mpstudy.structure.units import prunable_units

CALIBRATION = tokens(6, 20, seed=5)  # 120 tokens in 32 dimensions
OWN = {
    "qwen2": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3, "use_sliding_window": True}
}
OWN |= {"mistral": {"sliding_window": 3}, "granite": {"mlp_bias": True, "attention_bias": True}}


class ExactNorm(nn.Module):
    """The norm of a family in the dtype of its input; transformers computes it in fp32 whatever that is."""

    def __init__(self, norm, offset):
        super().__init__()
        self.weight, self.offset = norm.weight, offset
        self.eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * (self.weight + self.offset)


def exact(model):
    """``model`` with norms, and with Gemma's factor of the embeddings, in float64."""
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            model.set_submodule(name, ExactNorm(module, OFFSETS[model.config.model_type]))
    embedding = model.get_input_embeddings()
    if hasattr(embedding, "embed_scale"):
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale, dtype=torch.float64)
    return model


def family_model(kind, **changes):
    """In float64 throughout, with gains that are not one and a large epsilon."""
    model = tiny_family(kind, **OWN.get(kind, {}) | {"rms_norm_eps": 1e-2} | changes).double()
    torch.manual_seed(3)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return exact(model)


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch).logits


def projected_logits(model, batch, size):
    """What the dense model computes when its states are projected, before every norm, on the leading right singular
    vectors of what that norm makes of the calibration samples.
    """
    rows = len(CALIBRATION)

    def cut(states):
        eps = model.config.rms_norm_eps
        signal = states[:rows] / (states[:rows].square().mean(-1, keepdim=True) + eps).sqrt()
        leading = torch.linalg.svd(signal.flatten(0, 1)).Vh[:size]
        return states @ leading.T @ leading

    def forward_of(block):
        share = model.config.residual_multiplier if model.config.model_type == "granite" else 1

        def forward(states, **options):
            states = cut(states)
            states = cut(states + share * block.self_attn(hidden_states=block.input_layernorm(states), **options)[0])
            return states + share * block.mlp(block.post_attention_layernorm(states))

        return forward

    model = copy.deepcopy(model)
    for block in layers(model):
        block.forward = forward_of(block)
    model.base_model.norm.register_forward_pre_hook(lambda module, arguments: cut(arguments[0]))
    return logits(model, torch.cat([CALIBRATION, batch]))[rows:]


def low_rank(model, rank):
    """``model`` with all that is written to its states in a subspace of ``rank`` dimensions."""
    torch.manual_seed(4)
    basis = torch.linalg.qr(torch.randn(model.config.hidden_size, rank, dtype=torch.float64)).Q
    projection = basis @ basis.T
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding.copy_(embedding @ projection)
        for block in layers(model):
            for linear in (block.self_attn.o_proj, block.mlp.down_proj):
                linear.weight.copy_(projection @ linear.weight)
                if linear.bias is not None:
                    linear.bias.copy_(projection @ linear.bias)
    return model


@pytest.fixture(params=sorted(OFFSETS))
def model(request):
    return family_model(request.param)


def test_a_cut_of_nothing_changes_nothing(model):
    before = bits(model)
    sliced = exact(slice_model(model, [CALIBRATION[:4], CALIBRATION[4:]], 0.0))
    dense = logits(model, tokens(2, 20))
    torch.testing.assert_close(logits(sliced, tokens(2, 20)), dense, rtol=0, atol=1e-11 * float(dense.abs().max()))
    assert same_bits(model, before) and sliced.config.hidden_size == 32
    assert not torch.allclose(sliced.get_input_embeddings().weight, model.get_input_embeddings().weight, atol=1e-2)


@pytest.mark.parametrize("kind", sorted(OFFSETS))
def test_a_cut_of_nothing_in_single_precision(kind):
    model = tiny_family(kind, **OWN.get(kind, {}))
    sliced = slice_model(model, [CALIBRATION], 0.0)
    torch.testing.assert_close(logits(sliced, tokens()), logits(model, tokens()), rtol=0, atol=2e-4)


def test_states_of_few_dimensions_lose_nothing_with_the_others(model):
    """The norms still divide by the dense size."""
    model = low_rank(model, 24)
    rows = []
    sliced = exact(slice_model(model, [CALIBRATION], 0.25, log=rows.append))
    assert sliced.config.hidden_size == 24 and [row["kept"] for row in rows] == pytest.approx([1, 1], abs=1e-12)
    torch.testing.assert_close(logits(sliced, tokens()), logits(model, tokens()), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("cut", "size"), [(0.25, 24), (0.5, 16)])
def test_a_sliced_model_is_the_dense_one_in_projections(model, cut, size):
    sliced = exact(slice_model(model, CALIBRATION.split(2), cut))
    expected = projected_logits(model, tokens(3, 20), size)
    assert not torch.allclose(expected, logits(model, tokens(3, 20)), atol=1e-2)
    torch.testing.assert_close(logits(sliced, tokens(3, 20)), expected, rtol=0, atol=1e-8)


def test_more_of_the_signal_is_kept_with_more_dimensions():
    kept = []
    for cut in (0.75, 0.5, 0.25, 0.0):
        rows = []
        slice_model(family_model("llama"), [CALIBRATION], cut, log=rows.append)
        assert [row["layer"] for row in rows] == [0, 1]
        kept.append([row["kept"] for row in rows])
    assert all(0 < less < more for before, after in zip(kept, kept[1:]) for less, more in zip(before, after))
    assert kept[-1] == pytest.approx([1, 1], abs=1e-12)


def test_it_generates(model):
    kind = model.config.model_type
    sliced = slice_model(tiny_family(kind, **OWN.get(kind, {})), [CALIBRATION], 0.25)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    cached, whole = (sliced.generate(tokens(1, 6), use_cache=use, **options) for use in (True, False))
    assert cached.shape == (1, 11) and torch.equal(cached, whole)


def test_tied_embeddings_are_apart_afterwards():
    model = tiny_model(tie_word_embeddings=True)
    sliced = slice_model(model, [CALIBRATION], 0.0)
    assert sliced.get_input_embeddings().weight is not sliced.get_output_embeddings().weight
    torch.testing.assert_close(logits(sliced, tokens()), logits(model, tokens()), rtol=0, atol=2e-4)


def test_parameters_and_macs_count_the_shortcuts():
    """Hidden 32 to 24, two layers, 4 query heads and 2 KV heads of 8, MLP 24, vocabulary 257."""
    sliced = slice_model(tiny_model(), [CALIBRATION], 0.25)
    layer = 24 * (32 + 16 + 16 + 32 + 3 * 24) + 2 * 24 * 24
    assert cost.parameter_count(sliced) == 2 * (257 * 24) + 2 * layer
    attention = 2 * 4 * 8 * 10 * 10  # queries by keys, and weights by values, at 10 tokens
    assert cost.macs(sliced, tokens=10) == 10 * 257 * 24 + 2 * (10 * layer + attention)


def test_heads_that_do_not_divide_the_hidden_size():
    sizes = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8}
    model = family_model("llama", **sizes)
    sliced = slice_model(model, [CALIBRATION], 0.2)
    assert sliced.config.hidden_size == 56 and sliced.config.model_type == "mistral"
    expected = projected_logits(model, tokens(3, 20), 56)
    torch.testing.assert_close(logits(sliced, tokens(3, 20)), expected, rtol=0, atol=1e-8)
    with pytest.raises(StudyError, match="a config of llama cannot name a hidden size of 56 with 9 heads"):
        slice_model(tiny_family("llama", **sizes, attention_bias=True), [CALIBRATION], 0.2)


def test_units_are_removed_before_and_after():
    model = tiny_model()
    units = prunable_units(model, "0-1")
    surgery.remove_units(model, make_plan(pruners.score("random", model, [], units), units, 0.5, "global"))
    torch.testing.assert_close(
        logits(slice_model(model, [CALIBRATION], 0.0), tokens()), logits(model, tokens()), rtol=0, atol=2e-4
    )
    sliced = slice_model(tiny_model(), [CALIBRATION], 0.25)
    units = prunable_units(sliced, "0-1")
    plan = make_plan(pruners.score("taylor", sliced, [CALIBRATION], units), units, 0.5)
    zeroed = logits(surgery.zero_units(copy.deepcopy(sliced), plan), tokens())
    surgery.remove_units(sliced, plan)
    torch.testing.assert_close(logits(sliced, tokens()), zeroed, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("hidden", "cut", "size"),
    [
        (4096, 0.25, 3072),
        (4096, 0.2, 3280),
        (576, 0.0, 576),
        (30, 0.0, 30),
        (576, 0.1, 520),
        (30, 0.01, 30),
        (30, 0.9, 8),
    ],
)
def test_the_size_that_is_left_is_a_multiple_of_eight(hidden, cut, size):
    assert kept_size(hidden, cut) == size


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - set(OFFSETS)))
def test_other_families_are_refused_with_the_reason(kind):
    with pytest.raises(StudyError, match=f"models of {kind} cannot be sliced: {REASONS[kind]}; those of llama, "):
        slice_model(tiny_family(kind), [CALIBRATION], 0.25)


def test_what_cannot_be_sliced_is_refused():
    sliced = slice_model(tiny_model(), [CALIBRATION], 0.25)
    with pytest.raises(StudyError, match="the model is sliced already, from a hidden size of 32"):
        check_sliceable(sliced.config)
    with pytest.raises(StudyError, match="the cut must be a number in"):
        slice_model(tiny_model(), [CALIBRATION], 1.0)
    broken = tiny_model()
    nn.init.constant_(broken.model.layers[1].self_attn.o_proj.weight, float("nan"))
    with pytest.raises(StudyError, match="the states at the attention of layer 1 are not finite"):
        slice_model(broken, [CALIBRATION], 0.25)
    with pytest.raises(StudyError, match="blocks of a sliced model cannot be left out"):
        blocks.score("block-ppl", sliced, [CALIBRATION])
    with pytest.raises(StudyError, match="blocks of a sliced model cannot be left out"):
        plan = depth.plan_blocks(blocks.score("block-influence", tiny_model(), [CALIBRATION]), 0.5, first=0, last=0)
        depth.remove_blocks(sliced, plan)
