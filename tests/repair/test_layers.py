"""A model is repaired layer after layer, whatever its family, and nothing but its output projections changes."""

import copy

import pytest
import torch
from helpers.families import UNGROUPED, tiny_family
from helpers.models import bits, same_bits
from helpers.tiny import tokens
from transformers import AutoModelForCausalLM

import mpstudy
from mpstudy.errors import StudyError
from mpstudy.repair import REPAIRS, repair
from mpstudy.repair.outputs import output_of
from mpstudy.structure import checkpoint, surgery
from mpstudy.structure.families import FAMILIES, family, layers
from mpstudy.structure.plan import Plan
from mpstudy.structure.units import prunable_units, unit_sets

KINDS = sorted(FAMILIES)
METHODS = [name for name, record in REPAIRS.items() if record.function]
BIASED = ("gpt_neox", "granite", "llama", "opt")  # whose config can give o and down a bias
ATTENTION_ONLY = ("gemma", "gemma2", "gemma3_text", "qwen3")  # or o alone
BATCHES = list(tokens(8, 24).split(2))
REMOVED = {"layers.0.attention": [0], "layers.0.mlp": range(0, 24, 3), "layers.1.mlp": [3, 4, 23]}


def plan_of(model, removed=REMOVED):
    counts = prunable_units(model, "0-1").counts
    return Plan({key: torch.tensor(list(removed.get(key, [])), dtype=torch.int64) for key in counts}, counts)


def allowed(kind, method, removed=REMOVED):
    """``removed`` without what a family cannot repair by ``method``."""
    if method != "bias" or kind in BIASED:
        return removed
    return {key: value for key, value in removed.items() if "mlp" not in key and kind in ATTENTION_ONLY}


def repaired(kind, method="least-squares", removed=REMOVED, batches=BATCHES, **options):
    """The dense model, the repaired one, and its rows."""
    dense = tiny_family(kind, **options)
    smaller = copy.deepcopy(dense)
    rows = repair(smaller, plan_of(dense, removed), batches, method=method)
    return dense, smaller, rows


def logits(model, batch=None):
    with torch.no_grad():
        return model(input_ids=tokens() if batch is None else batch).logits


def inputs_of(model, name):
    """The inputs of a linear layer over all batches, float64 (tokens, columns), by a plain forward pass."""
    found = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda module, x: found.append(x[0].flatten(0, -2)))
    for batch in BATCHES:
        logits(model, batch)
    hook.remove()
    return torch.cat(found).double()


def take_over(hybrid, repaired, unit_set):
    """Put what holds a set of units in ``repaired`` in its place in ``hybrid``."""
    if unit_set.kind == "attention":
        names = [f"{family(hybrid.config).layers}.{unit_set.layer}.{family(hybrid.config).attention}"]
    else:
        names = [name.rpartition(".")[0] for name in unit_set.names]
    for name in names:
        hybrid.set_submodule(name, repaired.get_submodule(name))


@pytest.mark.parametrize("kind", KINDS)
def test_each_projection_is_fitted_to_the_dense_one_on_what_repaired_ones_put_out(kind):
    """By explicit inputs from whole forward passes of a model that is repaired up to there, and a dense solver."""
    dense, smaller, rows = repaired(kind)
    assert [row["linear"] for row in rows] == [
        output_of(dense, unit_set)[1].name.removesuffix(".weight")
        for layer in (0, 1) for unit_set in unit_sets(dense, layer) if REMOVED.get(unit_set.key)
    ]  # fmt: skip
    hybrid, rows = copy.deepcopy(dense), iter(rows)
    for unit_set in [*unit_sets(dense, 0), *unit_sets(dense, 1)]:
        if removed := list(REMOVED.get(unit_set.key, [])):
            linear, part = output_of(dense, unit_set)
            name, row = part.name.removesuffix(".weight"), next(rows)
            x, weight = inputs_of(hybrid, name), linear.weight.detach().double()
            units = torch.ones(unit_set.count, dtype=torch.bool)
            units[removed] = False
            kept = units.repeat_interleave(len(weight.t()) // unit_set.count)
            missing, inside = x[:, ~kept] @ weight[:, ~kept].t(), x[:, kept]
            gram = inside.t() @ inside
            change = torch.linalg.solve(
                gram + 0.3 * gram.trace() / len(gram) * torch.eye(len(gram)), inside.t() @ missing
            )
            expected = weight[:, kept] + change.t()
            torch.testing.assert_close(smaller.get_parameter(part.name).double(), expected, rtol=1e-3, atol=1e-5)
            whole = (x @ weight.t()).square().sum()
            assert row["before"] == pytest.approx(float(missing.square().sum() / whole), rel=1e-3)
            assert row["after"] == pytest.approx(float((missing - inside @ change).square().sum() / whole), rel=1e-3)
            assert (row["removed"], row["units"]) == (len(removed), unit_set.count)
        take_over(hybrid, smaller, unit_set)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_falls_and_nothing_else_changes(kind, method):
    removed = allowed(kind, method)
    dense, smaller, rows = repaired(kind, method, removed)
    assert len(rows) == len(removed) and all(row["after"] < row["before"] for row in rows)
    pruned = surgery.remove_units(copy.deepcopy(dense), plan_of(dense, removed))
    repaired_names = {row["linear"] + end for row in rows for end in (".weight", ".bias")}
    before, zero = dict(pruned.named_parameters()), torch.zeros(1)
    for name, value in smaller.named_parameters():
        if name not in repaired_names:
            assert torch.equal(value, before.get(name, zero.expand(value.shape))), name  # a new bias is zero
        elif name in before:
            changes = name.endswith("weight") == (method != "bias")
            assert torch.equal(value, before[name]) != changes
    assert not removed or not torch.allclose(logits(smaller), logits(pruned), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_loads_bit_for_bit(kind, method, tmp_path):
    _, smaller, _ = repaired(kind, method, allowed(kind, method))
    checkpoint.save_pruned(smaller, tmp_path / "repaired")
    again = mpstudy.load_pruned(tmp_path / "repaired")
    assert same_bits(again, bits(smaller)) and torch.equal(logits(again), logits(smaller))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_equal_layers_is_exported(kind, method, tmp_path):
    removed = {"layers.0.mlp": range(8), "layers.1.mlp": range(4, 12)}
    if kind not in UNGROUPED:
        removed |= {"layers.0.attention": [0], "layers.1.attention": [1]}
    _, smaller, _ = repaired(kind, method, allowed(kind, method, removed))
    checkpoint.export_standard(smaller, tmp_path / "standard")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "standard").eval()
    assert torch.equal(logits(again), logits(smaller))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_that_no_config_knows_is_refused_before_anything_changes(kind):
    removed = {"layers.1.mlp": [3]} if kind in ATTENTION_ONLY else REMOVED
    if kind in BIASED:
        assert len(repaired(kind, "bias", removed)[2]) == 3
        return
    model = tiny_family(kind)
    before = bits(model)
    with pytest.raises(StudyError, match=f"no config of {kind} gives the output of its (mlp|attention) a bias"):
        repair(model, plan_of(model, removed), BATCHES, method="bias")
    assert same_bits(model, before)


@pytest.mark.parametrize("method", REPAIRS)
def test_removing_nothing_changes_nothing(method):
    dense, smaller, rows = repaired("llama", method, {})
    assert rows == [] and same_bits(smaller, bits(dense)) and not smaller.config.mlp_bias


def test_no_repair_is_plain_removal():
    dense, smaller, rows = repaired("llama", "none")
    assert rows == [] and same_bits(smaller, bits(surgery.remove_units(dense, plan_of(tiny_family("llama")))))


@pytest.mark.parametrize("method", ["least-squares", "admm"])
def test_an_infinite_strength_is_plain_removal(method):
    model = tiny_family("llama")
    pruned = surgery.remove_units(copy.deepcopy(model), plan_of(model))
    repair(model, plan_of(model), BATCHES, method=method, strength=1e12)
    torch.testing.assert_close(logits(model), logits(pruned), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_batches_are_only_how_much_runs_at_once(method):
    removed = REMOVED | {"layers.1.attention": [1]}
    (_, one, _), (_, other, _) = (repaired("llama", method, removed, batches) for batches in (BATCHES, [tokens(8, 24)]))
    torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{"use_parallel_residual": True}, {"use_parallel_residual": False}], ids=str)
def test_parallel_attention_and_mlp(options):
    assert all(row["after"] < row["before"] for row in repaired("gpt_neox", **options)[2])


def test_short_sliding_windows_are_those_of_each_layer():
    """The layer of full attention reads what the one before put out under its window."""
    _, smaller, rows = repaired("gemma3_text", removed={"layers.1.mlp": range(8)}, sliding_window=3)
    _, other, _ = repaired("gemma3_text", removed={"layers.1.mlp": range(8)})
    name = f"{rows[0]['linear']}.weight"
    assert not torch.allclose(smaller.get_parameter(name), other.get_parameter(name), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_numbers_that_are_not_finite_end_in_one_line_with_the_layer(method, bad):
    model = tiny_family("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[5, 0] = bad
    with pytest.raises(StudyError, match=rf"not finite in model.layers.1.mlp.down_proj \(repair {method}\)$"):
        repair(model, plan_of(model), BATCHES, method=method)


def test_too_few_tokens_without_strength_name_the_layer():
    model = tiny_family("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[5] = 0  # a channel that puts out nothing
    with pytest.raises(StudyError, match="model.layers.1.mlp.down_proj cannot be factorised .repair least-squares, st"):
        repair(model, plan_of(model), BATCHES, strength=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "obs"}, "unknown repair 'obs'; known: admm, bias, least-squares, none"),
        ({"strength": -1.0}, "the strength of a repair must be a finite number >= 0, not -1.0"),
        ({"method": "bias", "strength": 0.1}, "repair 'bias' has no strength; these have one: least-squares, admm"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(options, message):
    model = tiny_family("llama")
    before = bits(model)
    with pytest.raises(StudyError, match=message):
        repair(model, plan_of(model), BATCHES, **options)
    assert same_bits(model, before)


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_of_another_model_or_of_hidden_dimensions_is_refused(method):
    model = tiny_family("llama")
    before, large = bits(model), tiny_family("llama", intermediate_size=30)
    with pytest.raises(StudyError, match="the plan does not fit this model: layers.0.mlp has 30 units, 24 here"):
        repair(model, plan_of(large), BATCHES, method=method)
    hidden = Plan({"hidden": torch.tensor([1])}, {"hidden": 32})
    with pytest.raises(StudyError, match=f"hidden dimensions are inputs of every layer: repair '{method}' is of heads"):
        repair(model, hidden, BATCHES, method=method)
    assert same_bits(model, before)


def test_layers_before_and_after_the_plan_stay_as_they_are():
    dense, smaller, rows = repaired("llama", removed={"layers.1.attention": [0]})
    assert [row["layer"] for row in rows] == [1]
    first, second = (dict(layers(model)[0].named_parameters()) for model in (dense, smaller))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
