"""wanda-sp and flap against brute force: all activations kept, plain formulas, units cut out of a copy for good."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, equal, same_bits, tiny_llama, tiny_tokens
from helpers.tiny import tokens

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.pruners.activations import Moments
from mpstudy.structure import families, surgery
from mpstudy.structure.plan import Plan, make_plan
from mpstudy.structure.scores import Scores
from mpstudy.structure.shares import plan_share, unit_sizes
from mpstudy.structure.units import Units, prunable_units

KINDS = sorted(families.FAMILIES)
READERS = {"opt": ("self_attn.out_proj", "fc2"), "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h")}
METRICS = ["WIFV", "IFV", "WIFN"]
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def readers(model, layer: int) -> dict:
    """The o and down of a layer, by the key of their unit set."""
    module, kind = families.layers(model)[layer], model.config.model_type
    names = READERS.get(kind, ("self_attn.o_proj", "mlp.down_proj"))
    return {f"layers.{layer}.{part}": module.get_submodule(name) for part, name in zip(("attention", "mlp"), names)}


def inputs(model, batch, layer: int) -> dict[str, np.ndarray]:
    """What goes into o and down of a layer, float64 (tokens of all samples, columns), by the key of their unit set."""
    found, hooks = {}, []
    for key, linear in readers(model, layer).items():
        keep = lambda module, arguments, key=key: found.update({key: arguments[0]})  # noqa: E731
        hooks.append(linear.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(input_ids=batch)
    for hook in hooks:
        hook.remove()
    return {key: x.reshape(-1, x.shape[-1]).double().numpy() for key, x in found.items()}


def weights(model, layer: int) -> dict[str, np.ndarray]:
    return {key: linear.weight.detach().double().numpy() for key, linear in readers(model, layer).items()}


def by_brute_force_flap(model, batch, metric: str, counts: dict[str, int]) -> dict[str, np.ndarray]:
    values = {}
    for layer in range(2):
        for key, x in inputs(model, batch, layer).items():
            w, samples = weights(model, layer)[key], len(batch)
            fluctuation = ((x - x.mean(axis=0)) ** 2).sum(axis=0) / samples  # as the release scales it
            norm = np.sqrt((x**2).sum(axis=0) / samples)
            column = {
                "WIFV": fluctuation * (w**2).sum(axis=0), "IFV": fluctuation, "WIFN": (np.abs(w) * norm).mean(axis=0)
            }[metric]  # fmt: skip
            column = column**2 if "attention" in key else column
            z = (column - column.mean()) / column.std(ddof=1)
            values[key] = np.array([part.mean() for part in np.split(z, counts[key])])
    return values


def by_brute_force_wanda(model, batch, counts, choose) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Scores, and the units that ``choose(scores of a layer)`` removes, cut out before the next layer is scored."""
    values, removed, smaller = {}, {}, copy.deepcopy(model)
    for layer in range(2):
        for key, x in inputs(smaller, batch, layer).items():
            column = np.zeros(x.shape[1])
            for j in range(x.shape[1]):
                column[j] = np.mean(np.abs(weights(smaller, layer)[key][:, j]) * np.sqrt(np.mean(x[:, j] ** 2)))
            values[key] = np.array([part.sum() for part in np.split(column, counts[key])])
        here = {key: value for key, value in values.items() if key.startswith(f"layers.{layer}.")}
        gone = choose(here)
        removed |= gone
        plan = {key: torch.tensor(indices, dtype=torch.int64) for key, indices in gone.items()}
        surgery.remove_units(smaller, Plan(plan, {key: counts[key] for key in plan}))
    return values, removed


def lowest_half(here: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {key: sorted(np.argsort(value, kind="stable")[: len(value) // 2].tolist()) for key, value in here.items()}


def assert_near(scores: Scores, expected: dict[str, np.ndarray]) -> None:
    assert list(scores.values) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(scores.values[key].double(), torch.from_numpy(value), **NEAR)


# ---- against brute force


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_flap_is_its_formula_in_every_family(kind, metric):
    model, batch = tiny_family(kind), tokens(3, 10)
    units = prunable_units(model, "0-1")
    found = pruners.score("flap", model, [batch], units, metric=metric)
    expected = by_brute_force_flap(model, batch, metric, units.counts)
    assert_near(found, expected)
    removed = make_plan(found, units, 0.5).removed
    assert {key: indices.tolist() for key, indices in removed.items()} == lowest_half(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_wanda_sp_is_its_formula_with_the_units_before_cut_out(kind):
    model, batch = tiny_family(kind), tokens(3, 10)
    units = prunable_units(model, "0-1")
    found = pruners.score("wanda-sp", model, [batch], units, ratio=0.5)
    expected, removed = by_brute_force_wanda(model, batch, units.counts, lowest_half)
    assert_near(found, expected)
    plan = make_plan(found, units, 0.5).removed
    assert {key: indices.tolist() for key, indices in plan.items()} == removed
    dense = pruners.score("wanda-sp", model, [batch], units, ratio=0.0)
    assert torch.equal(dense.values["layers.0.mlp"], found.values["layers.0.mlp"])
    assert not torch.allclose(dense.values["layers.1.mlp"], found.values["layers.1.mlp"], rtol=1e-3)


def test_wanda_sp_of_the_parameters_follows_the_plan_at_that_share():
    model, batch = tiny_llama(kv_heads=2, bias=True), tiny_tokens()
    units = prunable_units(model, "0-1")
    sizes, share = unit_sizes(model, units), 0.4

    def choose(here):
        chosen = Units(tuple(units[key] for key in here))
        scores = Scores({key: torch.from_numpy(value).float() for key, value in here.items()})
        return {key: indices.tolist() for key, indices in plan_share(scores, chosen, sizes, share).removed.items()}

    found = pruners.score("wanda-sp", model, [batch], units, ratio=share, of="parameters")
    expected, removed = by_brute_force_wanda(model, batch, units.counts, choose)
    assert_near(found, expected)
    plan = plan_share(found, units, sizes, share).removed
    assert {key: indices.tolist() for key, indices in plan.items()} == removed
    assert found.meta == {"pruner": "wanda-sp", "ratio": share, "of": "parameters"}


def test_layers_without_units_are_passed_through_whole():
    """The layer between loses nothing, the one before its channels, and the last is scored on both."""
    model, batch = tiny_llama(layers=4), tiny_tokens()
    units = prunable_units(model, "attention 3-3, mlp 1-1")
    found = pruners.score("wanda-sp", model, [batch], units, ratio=0.5)
    smaller = surgery.remove_units(copy.deepcopy(model), Plan(
        {"layers.1.mlp": make_plan(found, units, 0.5).removed["layers.1.mlp"]}, {"layers.1.mlp": 24}
    ))  # fmt: skip
    x, w = (of["layers.3.attention"] for of in (inputs(smaller, batch, 3), weights(smaller, 3)))
    column = np.abs(w).mean(axis=0) * np.sqrt((x**2).mean(axis=0))
    torch.testing.assert_close(found.values["layers.3.attention"].double(), torch.from_numpy(column).view(4, 8).sum(1))


# ---- statistics in parts


@pytest.mark.parametrize("sizes", [[6000], [1, 5999], [4096, 1904], [10] * 600])
def test_running_moments_are_those_of_the_whole(sizes):
    whole = torch.randn(6000, 5, generator=torch.Generator().manual_seed(0)) * 3 + torch.tensor([0, 1, 10, 1e3, 1e4])
    moments = Moments()
    for part in whole.split(sizes):
        moments.add(part.unsqueeze(0))
    exact = whole.double().numpy()
    assert moments.count == 6000 and moments.mean.dtype == torch.float64
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.variance.numpy(), exact.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.mean_square.numpy(), (exact**2).mean(axis=0), rtol=1e-12)


def test_moments_by_hand():
    moments = Moments()
    moments.add(torch.tensor([[1.0, 2.0]]))
    moments.add(torch.tensor([[3.0, 2.0], [5.0, 2.0]]))
    assert moments.mean.tolist() == [3.0, 2.0] and moments.mean_square.tolist() == pytest.approx([35 / 3, 4.0])
    assert moments.variance.tolist() == pytest.approx([8 / 3, 0.0])


@pytest.mark.parametrize("name", ["wanda-sp", "flap"])
def test_the_split_into_batches_changes_nothing(name):
    model, batch = tiny_llama(kv_heads=2, bias=True), tiny_tokens(samples=6)
    units = prunable_units(model, "0-1")
    whole = pruners.score(name, model, [batch], units)
    for size in (1, 2, 4):
        parts = pruners.score(name, model, list(batch.split(size)), units)
        for key, value in whole.values.items():
            torch.testing.assert_close(parts.values[key], value, rtol=1e-5, atol=1e-6)


# ---- what they are in small


def test_flap_has_mean_zero_in_each_layer():
    model = tiny_llama()
    found = pruners.score("flap", model, [tiny_tokens()], prunable_units(model, "0-1"))
    for key, value in found.values.items():
        assert value.mean().item() == pytest.approx(0, abs=1e-5)
        assert "mlp" not in key or value.std().item() == pytest.approx(1, abs=1e-5)


def test_flap_of_equal_columns_is_zero():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = pruners.score("flap", model, [tiny_tokens()], prunable_units(model, "0-1"))
    assert (found.values["layers.1.mlp"] == 0).all() and found.values["layers.0.mlp"].any()


@pytest.mark.parametrize("name", ["wanda-sp", "flap"])
def test_nothing_stays_hooked_after_an_interruption(name, monkeypatch):
    model = tiny_llama()
    units = prunable_units(model, "0-1")
    before, whole = bits(model), pruners.score(name, model, [tiny_tokens()], units)
    with monkeypatch.context() as patch:
        patch.setattr(Moments, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pruners.score(name, model, [tiny_tokens()], units)
    assert not any(module._forward_pre_hooks for module in model.modules()) and same_bits(model, before)
    assert equal(pruners.score(name, model, [tiny_tokens()], units), whole)


# ---- what is refused


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("wanda-sp", {"ratio": 1.0}, r"the pruning ratio must be a number in \[0, 1\), not 1.0"),
        ("wanda-sp", {"ratio": -0.1}, r"the pruning ratio must be a number in \[0, 1\), not -0.1"),
        ("wanda-sp", {"ratio": "half"}, "ratio of pruner 'wanda-sp' must be a finite number, not 'half'"),
        ("wanda-sp", {"of": "heads"}, "unknown of of pruner 'wanda-sp' 'heads'; known: parameters, units"),
        ("wanda-sp", {"ratio": 0.99}, "ratio 0.99 with local scope removes all units of layers.0.attention"),
        ("flap", {"metric": "FIV"}, "unknown metric of pruner 'flap' 'FIV'; known: IFV, WIFN, WIFV"),
        ("flap", {"metric": 1}, "metric of pruner 'flap' must be of type str, not 1"),
        ("flap", {"ratio": 0.2}, "unknown setting of pruner 'flap' 'ratio'; known: metric"),
    ],
)
def test_settings_that_are_refused(name, settings, message):
    model = tiny_llama()
    with pytest.raises(StudyError, match=message):
        pruners.score(name, model, [tiny_tokens()], prunable_units(model, "0-1"), **settings)


@pytest.mark.parametrize("name", ["wanda-sp", "flap"])
def test_hidden_dimensions_are_refused(name):
    model = tiny_llama()
    with pytest.raises(StudyError, match=f"{name} scores heads and channels; hidden dimensions are scored by taylor, "):
        pruners.score(name, model, [tiny_tokens()], prunable_units(model, "hidden"))


@pytest.mark.parametrize("name", ["wanda-sp", "flap"])
def test_inputs_that_are_not_finite_are_named(name):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(StudyError, match="the inputs of model.layers.1.mlp.down_proj are not finite"):
        pruners.score(name, model, [tiny_tokens()], prunable_units(model, "0-1"))
