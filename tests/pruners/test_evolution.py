"""The evolution of masks: importance, the search, the scores that hold what it found."""

import itertools

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import FEW, equal, tiny_llama, tiny_tokens
from helpers.tiny import tokens

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.gradients.forward import forward_loss
from mpstudy.pruners.evolution import Evolution, Search, evolution, importances
from mpstudy.pruners.offspring import Offspring
from mpstudy.store.state import State
from mpstudy.structure import surgery
from mpstudy.structure.plan import make_plan
from mpstudy.structure.shares import plan_share, unit_sizes
from mpstudy.structure.units import UnitSet, prunable_units
from mpstudy.structure.weights import seeded

SMALL = FEW["evolution"]


# ---- the importance


@pytest.mark.parametrize("kind", ["llama", "phi3", "opt"])
def test_importance_by_brute_force(kind):
    model, batches = tiny_family(kind), [tokens(), tokens(seed=3)]
    units, inputs = prunable_units(model, "0-1"), {}
    handles = [
        module.register_forward_pre_hook(lambda m, a, name=name: inputs.setdefault(name, []).append(a[0]))
        for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    ]  # fmt: skip
    with torch.no_grad():
        for batch in batches:
            model(input_ids=batch)
    for handle in handles:
        handle.remove()
    found = importances(model, batches, units)
    for unit_set in units:
        expected = torch.zeros(unit_set.count, dtype=torch.float64)
        for part in unit_set.slices:
            name, _, leaf = part.name.rpartition(".")
            if leaf == "bias":
                continue
            x = torch.cat([each.flatten(0, -2) for each in inputs[name]]).double()
            gram = 2 * x.t() @ x
            gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
            inverse = gram.inverse().diagonal()
            weight = model.get_parameter(part.name).double()
            for unit in range(unit_set.count):
                lines = range(part.start + unit * part.rows_per_unit, part.start + (unit + 1) * part.rows_per_unit)
                for line in lines:
                    if part.dim == 0:
                        expected[unit] += (weight[line].square() / inverse).sum()
                    else:
                        expected[unit] += weight[:, line].square().sum() / inverse[line]
        torch.testing.assert_close(found.values[unit_set.key].double(), expected.detach(), rtol=1e-3, atol=0)


def test_a_layer_that_reads_nothing_has_no_importance():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.zero_()  # down reads zeros
    units = prunable_units(model, "1")
    assert torch.isfinite(importances(model, [tiny_tokens()], units).values["layers.1.mlp"]).all()


# ---- the search


SETS = [UnitSet(layer, kind, 12, ()) for layer in range(2) for kind in ("attention", "mlp")]
CHEAP = {"layers.0.attention": 3, "layers.1.attention": 5, "layers.0.mlp": 6, "layers.1.mlp": 2}
EVEN = {each.key: 4 for each in SETS}


def draws(key: str) -> torch.Tensor:
    return torch.rand(12, generator=seeded(key))


def worths() -> dict:
    """What a loss rises by without a unit: 0.5 to 1, for few units a tenth of that, not as many in each layer."""
    found = {}
    for key, number in CHEAP.items():
        found[key] = 0.5 + draws(key) / 2
        found[key][draws(f"cheap {key}").argsort()[:number]] /= 10
    return found


WORTH = worths()
NOISY = {key: value + 0.5 * draws(f"noise {key}") for key, value in WORTH.items()}  # an importance of half the truth


def damage(mask) -> float:
    return sum(float(WORTH[key][~kept].sum()) for key, kept in mask.items())


def search(seed=0, importance=NOISY, fitness=damage, **settings):
    wanted = {"generations": 60, "population": 40, "mutations": 22, "crossovers": 10, "parents": 5} | settings
    return Search(Offspring(SETS, importance), EVEN, fitness, Evolution(**wanted), seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_the_best_mask(seed):
    """Of 24 units of a kind 8 go: the cheap ones, however many of a layer."""
    found = search(seed)
    mask = found.run(State(None, {}))
    for key, kept in mask.items():
        assert (~kept).nonzero().squeeze(1).tolist() == sorted(WORTH[key].argsort()[: CHEAP[key]].tolist())
    assert found.lowest == sorted(found.lowest, reverse=True) and found.first > found.lowest[0] > found.lowest[-1]


def test_with_the_true_importance_the_first_candidate_is_the_even_one():
    found = search(importance=WORTH, generations=1)
    found.run(State(None, {}))
    assert found.first == pytest.approx(sum(float(value.sort().values[:4].sum()) for value in WORTH.values()))


def test_parents_are_the_fittest_and_no_two_alike():
    seen = []

    def noted(mask):
        seen.append(damage(mask))
        return seen[-1]

    found = search(fitness=noted, generations=3)
    found.run(State(None, {}))
    losses = [loss for loss, _ in found.parents]
    assert losses == sorted(losses) == sorted(set(seen))[: len(losses)] and len(losses) == 5
    masks = [torch.cat(list(mask.values())) for _, mask in found.parents]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(masks, 2))


def test_rows_count_the_candidates():
    rows = []
    search(generations=3).run(State(None, {}), rows.append)
    assert [row["step"] for row in rows] == list(range(1, 111)) and {row["steps"] for row in rows} == {
        110
    }  # 40 + 2 x 35
    assert [row["lowest"] for row in rows] == [min(r["loss"] for r in rows[: n + 1]) for n in range(110)]


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    model, batches = tiny_llama(), [tiny_tokens(), tiny_tokens(seed=1)]
    units, state, steps = prunable_units(model, "0-1"), tmp_path / "run.state", []
    settings = SMALL | {"generations": 4}
    whole = evolution(model, batches, units, seed=3, **settings)

    def stop(row):
        steps.append(row["step"])
        if row["step"] == 12:  # 6 and 4 candidates were whole generations
            raise Stopped

    with pytest.raises(Stopped):
        evolution(model, batches, units, seed=3, log=stop, state=state, **settings)
    again = evolution(model, batches, units, seed=3, log=lambda row: steps.append(row["step"]), state=state, **settings)
    assert steps == [*range(1, 13), *range(11, 19)]
    assert equal(again, whole) and again.meta == whole.meta
    with pytest.raises(StudyError, match=r"run.state is of another run \(other ratio\)"):
        evolution(model, batches, units, seed=3, state=state, **settings | {"ratio": 0.25})
    with pytest.raises(StudyError, match=r"run.state is of another run \(other model\)"):
        evolution(tiny_llama(seed=1), batches, units, seed=3, state=state, **settings)


# ---- the pruner


@pytest.mark.parametrize("of", ["units", "parameters"])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_the_plan_at_its_ratio_is_the_mask_that_it_found(of, kv_heads):
    """Its model has the loss that the search read by masking."""
    model, batches = tiny_llama(layers=3, kv_heads=kv_heads), [tiny_tokens(), tiny_tokens(seed=1)]
    units = prunable_units(model, "0-2")
    scores = pruners.score("evolution", model, batches, units, **SMALL | {"ratio": 0.4, "of": of})
    if of == "units":
        plan = make_plan(scores, units, 0.4, "global")
    else:
        plan = plan_share(scores, units, unit_sizes(model, units), 0.4, "global")
    for key, removed in plan.removed.items():
        assert (scores.values[key] <= 1).nonzero().squeeze(1).tolist() == removed.tolist()
    dense = sum(forward_loss(model, batch, "") for batch in batches) / 2
    smaller = surgery.remove_units(model, plan)
    loss = sum(forward_loss(smaller, batch, "") for batch in batches) / 2
    assert loss == pytest.approx(scores.meta["lowest"][-1], abs=1e-5)
    assert (
        scores.meta["loss"] == pytest.approx(dense, abs=1e-6) and scores.meta["lowest"][-1] <= scores.meta["loss_even"]
    )
    assert scores.meta["forwards"] == 10


def test_it_is_no_worse_than_the_even_mask_of_its_importance():
    model, batches = tiny_llama(layers=3), [tiny_tokens(4)]
    units = prunable_units(model, "0-2")
    settings = {"generations": 4, "population": 10, "parents": 3, "mutations": 4, "crossovers": 2, "ratio": 0.5}
    meta = pruners.score("evolution", model, batches, units, **settings).meta
    assert meta["lowest"][-1] < meta["loss_even"] and len(meta["lowest"]) == 4


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"ratio": -0.1}, r"the pruning ratio must be a number in \[0, 1\), not -0.1"),
        ({"of": "depth"}, "unknown measure of the ratio 'depth'; known: parameters, units"),
        ({"generations": 0}, "generations of pruner 'evolution' must be a whole number of at least 1, not 0"),
        ({"mutations": -1}, "mutations of pruner 'evolution' must be a whole number of at least 0, not -1"),
        (
            {"population": 80},
            "population of pruner 'evolution' must be at least 90, its parents, mutations and crossovers",
        ),
        ({"generation": 3}, "unknown setting of pruner 'evolution' 'generation'; known: "),
        ({"ratio": 0.0}, "a ratio of 0.0 of the units removes not one unit"),
    ],
)
def test_refusals_come_before_any_work(settings, message):
    model = tiny_llama()
    with pytest.raises(StudyError, match=message):
        pruners.score("evolution", model, None, prunable_units(model, "0-1"), **settings)


def test_hidden_dimensions_are_refused():
    model = tiny_llama()
    with pytest.raises(StudyError, match="hidden dimensions cannot be masked"):
        pruners.score("evolution", model, [tiny_tokens()], prunable_units(model, "hidden"))
