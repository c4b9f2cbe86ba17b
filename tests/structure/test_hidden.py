"""Hidden dimensions leave the whole model: embeddings, norms, every projection and the output head."""

import copy

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import tiny_llama, tiny_tokens
from helpers.tiny import tiny_model, tokens
from transformers import AutoModelForCausalLM

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.structure import checkpoint, surgery
from mpstudy.structure.families import FAMILIES
from mpstudy.structure.plan import make_plan
from mpstudy.structure.units import prunable_units

REFUSED = dict.fromkeys(("gpt_neox", "opt"), "norms take")
REFUSED |= dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "embeddings are")
MODELS = {kind: lambda kind=kind: tiny_family(kind) for kind in sorted(FAMILIES) if kind not in REFUSED}
MODELS |= {"tied": lambda: tiny_model(tie_word_embeddings=True), "bias": lambda: tiny_llama(bias=True)}


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch).logits


def removed_by_l2(model):
    units = prunable_units(model, "hidden")
    return make_plan(pruners.score("l2", model, [], units), units, 0.25)


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_the_smaller_model_is_the_one_with_smaller_tensors(model):
    """The same weights, cut by their shapes alone, in a model of the transformers class made at that size."""
    plan = removed_by_l2(model)
    kept = [i for i in range(plan.counts["hidden"]) if i not in plan.removed["hidden"].tolist()]
    pruned = surgery.remove_units(copy.deepcopy(model), plan)
    assert pruned.config.hidden_size == len(kept) == pruned.get_input_embeddings().embedding_dim
    twin = AutoModelForCausalLM.from_config(copy.deepcopy(pruned.config)).eval()
    for small, large in zip(twin.parameters(), model.parameters(), strict=True):
        for dim, (now, before) in enumerate(zip(small.shape, large.shape)):
            if now != before:
                large = large.index_select(dim, torch.tensor(kept))
        small.data = large.detach().clone()
    batch = tokens(vocabulary=model.config.vocab_size)
    torch.testing.assert_close(logits(pruned, batch), logits(twin, batch), rtol=0, atol=1e-5)


def test_it_is_saved_loaded_and_generates(model, tmp_path):
    pruned = surgery.remove_units(model, removed_by_l2(model))
    batch = tokens(vocabulary=model.config.vocab_size)
    checkpoint.save_pruned(pruned, tmp_path / "pruned")
    again = checkpoint.load_pruned(tmp_path / "pruned")
    assert torch.equal(logits(again, batch), logits(pruned, batch))
    assert pruned.generate(batch[:1], max_new_tokens=3, do_sample=False, eos_token_id=None).shape == (1, 15)


def test_every_parameter_but_head_norms_and_row_biases_is_in_a_unit():
    model = tiny_family("qwen3")
    names = set(prunable_units(model, "hidden").names)
    left = {name for name, _ in model.named_parameters()} - names
    assert left == {f"model.layers.{i}.self_attn.{norm}_norm.weight" for i in (0, 1) for norm in ("q", "k")}


@pytest.mark.parametrize("name", ["taylor", "taylor2", "taylor-mix", "taylor-vector", "l1", "l2", "random"])
def test_scores_are_one_a_dimension(name):
    model = tiny_model(tie_word_embeddings=True)
    scores = pruners.score(name, model, [tokens()], prunable_units(model, "hidden"))
    assert scores.values["hidden"].shape == (32,) and torch.isfinite(scores.values["hidden"]).all()


def test_taylor_is_the_product_summed_over_all_parameters():
    model = tiny_model(tie_word_embeddings=True)
    scores = pruners.score("taylor", model, [tokens()], prunable_units(model, "hidden"))
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    expected = sum((p * p.grad).abs().sum() for p in model.parameters())
    assert scores.values["hidden"].sum().item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_depends_on_all_of_them_is_refused(kind):
    with pytest.raises(StudyError, match=f"hidden dimensions of {kind} cannot be pruned: its {REFUSED[kind]}"):
        prunable_units(tiny_family(kind), "hidden")


def test_moreau_does_not_score_hidden_dimensions():
    model = tiny_llama()
    with pytest.raises(StudyError, match="hidden dimensions are scored by taylor"):
        pruners.score("moreau", model, [tiny_tokens()], prunable_units(model, "hidden"))
