"""A standard checkpoint of equal widths is loaded by transformers alone."""

import subprocess
import sys

import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import byte_tokenizer, pruned_model, tokens
from transformers import AutoModelForCausalLM

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.structure import checkpoint, surgery
from mpstudy.structure.families import FAMILIES
from mpstudy.structure.plan import make_plan
from mpstudy.structure.units import prunable_units

FULL_HEADS = ("gpt_neox", "opt")  # their heads always fill the hidden size
SCRIPT = """
import sys
import torch
from transformers import AutoModelForCausalLM
batch = torch.load(sys.argv[1] + "/batch.pt")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/model").eval()
assert "mpstudy" not in sys.modules
with torch.no_grad():
    torch.save(model(input_ids=batch).logits, sys.argv[1] + "/logits.pt")
"""


def evenly_pruned(kind):
    model = tiny_family(kind)
    layers = "mlp 0-1" if kind in FULL_HEADS else "0-1"
    units = prunable_units(model, layers)
    plan = make_plan(pruners.score("l2", model, [], units), units, 0.5, multiple=5)
    return surgery.remove_units(model, plan)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_plain_transformers_loads_it_with_equal_logits(kind, tmp_path):
    model, batch = evenly_pruned(kind), tokens()
    checkpoint.export_standard(model, tmp_path / "model", tokenizer=byte_tokenizer())
    torch.save(batch, tmp_path / "batch.pt")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "logits.pt"), model(input_ids=batch).logits)


@pytest.mark.parametrize(("kind", "loaded"), [("llama", "mistral"), ("qwen3", "qwen3")])
def test_heads_that_do_not_divide_the_hidden_size(kind, loaded, tmp_path):
    """Seven of nine heads, as one share of the bundled model's parameters leaves them."""
    sizes = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 9}
    model = tiny_family(kind, **sizes)
    units = prunable_units(model, "0-1")
    surgery.remove_units(model, make_plan(pruners.score("l2", model, [], units), units, 0.25))
    checkpoint.export_standard(model, tmp_path / "model")
    twin = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert twin.config.model_type == loaded and twin.config.num_attention_heads == 7
    batch = tokens(1, 300)
    with torch.no_grad():
        assert torch.equal(twin(input_ids=batch).logits, model(input_ids=batch).logits)


@pytest.mark.parametrize(("kind", "more"), [("gemma2", {}), ("llama", {"attention_bias": True})])
def test_a_config_that_cannot_name_the_heads_says_so(kind, more, tmp_path):
    model = tiny_family(kind, hidden_size=72, num_attention_heads=9, num_key_value_heads=9, **more)
    units = prunable_units(model, "0-1")
    surgery.remove_units(model, make_plan(pruners.score("l2", model, [], units), units, 0.25))
    with pytest.raises(StudyError, match=f"a config of {kind} cannot name 7 heads in a hidden size of 72"):
        checkpoint.export_standard(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_widths_are_rounded_up_to_the_multiple():
    model = tiny_family("llama")
    units = prunable_units(model, "0-1")
    plan = make_plan(pruners.score("l2", model, [], units), units, 0.5, multiple=5)
    assert {key: plan.counts[key] - len(removed) for key, removed in plan.removed.items()} == {
        "layers.0.attention": 1, "layers.0.mlp": 15, "layers.1.attention": 1, "layers.1.mlp": 15,
    }  # fmt: skip


def test_unequal_widths_are_refused(tmp_path):
    with pytest.raises(StudyError, match="needs layers of equal widths; the (attention|mlp) units of these are"):
        checkpoint.export_standard(pruned_model(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", FULL_HEADS)
def test_a_family_that_cannot_name_fewer_heads_says_so(kind, tmp_path):
    model = tiny_family(kind)
    units = prunable_units(model, "attention 0-1")
    surgery.remove_units(model, make_plan(pruners.score("l2", model, [], units), units, 0.5))
    with pytest.raises(StudyError, match=f"a config of {kind} cannot name 2 heads of 4"):
        checkpoint.export_standard(model, tmp_path / "model")


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="exists; choose another folder"):
        checkpoint.export_standard(evenly_pruned("llama"), tmp_path)
