"""Blocks leave a model of every family, which is then a standard one with fewer layers."""

import copy

import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import tiny_model, tokens
from transformers import AutoModelForCausalLM

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.structure import checkpoint, depth, surgery
from mpstudy.structure.families import FAMILIES, layers
from mpstudy.structure.plan import Plan, make_plan
from mpstudy.structure.scores import Scores
from mpstudy.structure.units import prunable_units

SLIDING, FULL = "sliding_attention", "full_attention"
TYPES = [SLIDING, FULL, SLIDING, SLIDING, FULL]
TYPED = {"layer_types": TYPES, "sliding_window": 3}
OWN = dict.fromkeys(("gemma2", "gemma3_text"), TYPED)
OWN |= {kind: TYPED | {"use_sliding_window": True} for kind in ("qwen2", "qwen3")}
OWN |= {"mistral": {"sliding_window": 3}, "phi3": {"sliding_window": 3}}


def deep(kind, **changes):
    """Five layers; windows shorter than the texts where the family has them."""
    return tiny_family(kind, num_hidden_layers=5, **OWN.get(kind, {}) | changes)


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch).logits


def removing(*gone, of=5):
    return Plan({"blocks": torch.tensor(gone, dtype=torch.int64)}, {"blocks": of})


def by_weights(model, kept):
    """A model of the family with as many layers as ``kept``, made from its own config, with the weights of those."""
    config = copy.deepcopy(model.config).to_dict() | {"num_hidden_layers": len(kept)}
    if config.get("layer_types"):
        config["layer_types"] = [config["layer_types"][number] for number in kept]
    twin = AutoModelForCausalLM.from_config(type(model.config)(**config)).float().eval()
    for small, large in zip(layers(twin), (layers(model)[number] for number in kept), strict=True):
        small.load_state_dict(large.state_dict())
    twin.load_state_dict({n: v for n, v in model.state_dict().items() if ".layers." not in n}, strict=False)
    return twin


@pytest.fixture(params=sorted(FAMILIES))
def model(request):
    return deep(request.param)


def test_the_smaller_model_is_a_stock_one_with_the_weights_of_the_blocks_that_stay(model, tmp_path):
    batch, twin = tokens(), by_weights(model, [0, 3, 4])
    with depth.without_block(model, 1), depth.without_block(model, 2):
        skipped = logits(model, batch)
    dense = logits(model, batch)
    smaller = depth.remove_blocks(model, removing(1, 2))
    assert torch.equal(logits(smaller, batch), skipped) and torch.equal(logits(twin, batch), skipped)
    assert not torch.allclose(dense, skipped, atol=1e-2)
    checkpoint.save_standard(smaller, tmp_path / "smaller")
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller", output_loading_info=True)
    assert not any(info.values()) and again.config.num_hidden_layers == 3
    assert torch.equal(logits(again.eval(), batch), skipped)


@pytest.mark.parametrize("gone", [(1, 2), (0, 2, 3), (1, 4)])
def test_generation_with_a_cache_is_that_without(model, gone, tmp_path):
    """Also where no layer is left with, or none without a sliding window; in place and loaded anew."""
    checkpoint.save_standard(depth.remove_blocks(model, removing(*gone)), tmp_path / "smaller")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller").eval()
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    written = [
        each.generate(tokens(1, 6), use_cache=cached, **options) for each in (model, again) for cached in (True, False)
    ]
    assert written[0].shape == (1, 11) and all(torch.equal(text, written[0]) for text in written)


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "qwen2", "qwen3"])
def test_kinds_of_attention_go_with_their_blocks(kind, tmp_path):
    model = depth.remove_blocks(deep(kind), removing(0, 3))
    checkpoint.save_standard(model, tmp_path / "smaller")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller")
    for each in (model, again):
        assert each.config.layer_types == [FULL, SLIDING, FULL]
        assert [block.self_attn.sliding_window for block in layers(each)] == [None, 3, None]
        assert [block.self_attn.layer_idx for block in layers(each)] == [0, 1, 2]


def test_the_two_ropes_of_gemma_3_stay_with_their_kinds(tmp_path):
    ropes = {SLIDING: {"rope_theta": 10.0}, FULL: {"rope_theta": 1e6}}
    model = deep("gemma3_text", rope_parameters={kind: {"rope_type": "default"} | rope for kind, rope in ropes.items()})
    checkpoint.save_standard(depth.remove_blocks(model, removing(1, 4)), tmp_path / "smaller")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller").eval()
    assert again.config.rope_parameters[SLIDING]["rope_theta"] == 10.0
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))


def test_a_model_of_unequal_widths_stays_a_pruned_one(tmp_path):
    model = tiny_model(num_hidden_layers=5)
    units = prunable_units(model, "0-4")
    surgery.remove_units(model, make_plan(pruners.score("l2", model, [], units), units, 0.5, "global"))
    widths = [block.mlp.up_proj.out_features for block in model.model.layers]
    depth.remove_blocks(model, removing(1, 2))
    checkpoint.save_pruned(model, tmp_path / "pruned")
    again = checkpoint.load_pruned(tmp_path / "pruned")
    assert [block.mlp.up_proj.out_features for block in again.model.layers] == [widths[i] for i in (0, 3, 4)]
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))


def test_a_skipped_block_is_back_after_an_error():
    model = tiny_model()
    before = list(model.model.layers)
    with pytest.raises(RuntimeError), depth.without_block(model, 1):
        raise RuntimeError
    assert all(now is then for now, then in zip(model.model.layers, before, strict=True))


def scored(*values):
    return Scores({"blocks": torch.tensor(values, dtype=torch.float32)}, {"pruner": "block-ppl"})


def test_the_lowest_blocks_go_and_the_ends_stay():
    scores = scored(0, 0, 0, 0, 9, 3, 3, 7, 0, 0)
    assert depth.plan_blocks(scores, 0.2).removed["blocks"].tolist() == [5, 6]
    assert depth.plan_blocks(scores, 0.1).removed["blocks"].tolist() == [5]  # of equal ones the first
    assert depth.plan_blocks(scores, 0.4).removed["blocks"].tolist() == [4, 5, 6, 7]
    assert depth.plan_blocks(scores, 0.2, first=0, last=1).removed["blocks"].tolist() == [0, 1]
    plan = depth.plan_blocks(scores, 0.2, first=5, last=0)
    assert plan.removed["blocks"].tolist() == [8, 9] and plan.counts == {"blocks": 10}
    assert plan.meta == {"ratio": 0.2, "first": 5, "last": 0, "pruner": "block-ppl"}


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.2, 6), (0.27, 9), (0.35, 11)])
def test_the_numbers_of_blocks_are_those_of_shortened_llama(ratio, count):
    """Of 32 blocks: 5.5, 4.9 and 4.5 billion parameters of LLaMA-7B stay."""
    assert len(depth.plan_blocks(scored(*range(32)), ratio).removed["blocks"]) == count


@pytest.mark.parametrize(
    ("ratio", "more", "message"),
    [
        (1.0, {}, "the pruning ratio must be a number in"),
        (0.5, {}, "a ratio of 0.5 is 5 of 10 blocks, and 4 may go: the first 4, the last 2 and at least one stay"),
        (0.1, {"first": 10}, "1 of 10 blocks, and 0 may go"),
        (0.99, {"first": 0, "last": 0}, "10 of 10 blocks, and 9 may go"),
        (0.1, {"first": -1}, "the number of first blocks that stay must be a whole number of at least 0, not -1"),
    ],
)
def test_what_cannot_be_removed_is_one_line(ratio, more, message):
    with pytest.raises(StudyError, match=message):
        depth.plan_blocks(scored(*range(10)), ratio, **more)


def test_scores_and_plans_that_do_not_fit_are_refused():
    with pytest.raises(StudyError, match="the scores of the blocks are not finite"):
        depth.plan_blocks(scored(1, float("nan"), 2, 3), 0.25, first=0)
    with pytest.raises(StudyError, match="the scores are not of whole blocks, but of layers.0.mlp"):
        depth.plan_blocks(Scores({"layers.0.mlp": torch.ones(3)}), 0.25)
    model = tiny_model()
    with pytest.raises(StudyError, match="the plan does not fit this model: .* here are 2 blocks"):
        depth.remove_blocks(model, removing(1, of=3))
    assert len(model.model.layers) == 2
