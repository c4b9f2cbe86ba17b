"""Plans at a share of the parameters: hand-counted, met to half a channel, and refused where they cannot be."""

import pytest
import torch
from helpers.models import tiny_llama

from mpstudy.errors import StudyError
from mpstudy.evaluation.cost import parameter_count
from mpstudy.structure import surgery
from mpstudy.structure.plan import make_plan
from mpstudy.structure.scores import Scores
from mpstudy.structure.shares import plan_share, removed_shares, unit_sizes
from mpstudy.structure.units import prunable_units

MLP = 40


@pytest.fixture(scope="module")
def model():
    return tiny_llama(layers=3, mlp=MLP)


@pytest.fixture(scope="module")
def units(model):
    return prunable_units(model, "0-2")


@pytest.fixture(scope="module")
def sizes(model, units):
    return unit_sizes(model, units)


def scores_of(units, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Scores({key: torch.rand(count, generator=generator) for key, count in units.counts.items()})


def test_sizes_are_those_of_the_slices(model, units, sizes):
    hidden = model.config.hidden_size
    head = model.config.head_dim
    assert sizes["layers.1.mlp"] == 3 * hidden
    assert sizes["layers.1.attention"] == 4 * head * hidden  # q, k, v rows and o columns


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_share_is_met_to_half_a_channel(model, units, sizes, share, scope):
    plan = plan_share(scores_of(units), units, sizes, share, scope)
    pools = 3 if scope == "local" else 1
    whole = sum(sizes[key] * count for key, count in units.counts.items())
    gone = sum(sizes[key] * len(indices) for key, indices in plan.removed.items())
    assert abs(gone - share * whole) <= pools * sizes["layers.0.mlp"] / 2
    if scope == "local":
        assert len({len(plan.removed[f"layers.{layer}.mlp"]) for layer in range(3)}) == 1
    before = parameter_count(model)
    smaller = surgery.remove_units(tiny_llama(layers=3, mlp=MLP), plan)
    assert before - parameter_count(smaller) == gone
    facts = removed_shares(plan, units, sizes, before)
    assert facts["removed"] == pytest.approx(gone / whole) and facts["removed_model"] == pytest.approx(gone / before)
    heads = sum(len(indices) for key, indices in plan.removed.items() if "attention" in key)
    assert facts["heads_removed"] == pytest.approx(heads / 12)


def test_the_lowest_go_as_in_a_plan_of_units(units, sizes):
    scores = scores_of(units)
    plan = plan_share(scores, units, sizes, 0.25)
    same = make_plan(scores, units, 0.25)  # of 4 heads one, of 40 channels 10: a quarter of the parameters
    assert {key: value.tolist() for key, value in plan.removed.items()} == {
        key: value.tolist() for key, value in same.removed.items()
    }


def test_a_layer_of_channels_alone_loses_the_share_of_them(model):
    units = prunable_units(model, "attention 1-1, mlp 0-1")
    plan = plan_share(scores_of(units), units, unit_sizes(model, units), 0.25)
    assert len(plan.removed["layers.0.mlp"]) == 10 and len(plan.removed["layers.1.attention"]) == 1


@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_only_head_group_of_a_layer_stays(scope):
    """Channels alone make up the share, and a ratio of the units is one of the channels."""
    model = tiny_llama(layers=3, mlp=MLP, kv_heads=1)
    units = prunable_units(model, "0-2")
    sizes = unit_sizes(model, units)
    by_share = plan_share(scores_of(units), units, sizes, 0.2, scope)
    by_ratio = make_plan(scores_of(units), units, 0.5, scope)
    for plan in (by_share, by_ratio):
        assert all(len(plan.removed[f"layers.{layer}.attention"]) == 0 for layer in range(3))
    assert removed_shares(by_share, units, sizes, 1)["removed"] == pytest.approx(0.2, abs=0.01)
    assert sum(map(len, by_ratio.removed.values())) == 3 * MLP // 2


def test_shares_that_cannot_be_are_refused(model, units, sizes):
    with pytest.raises(StudyError, match="in \\[0, 1\\)"):
        plan_share(scores_of(units), units, sizes, 1.0)
    hidden = prunable_units(model, "hidden")
    with pytest.raises(StudyError, match="hidden dimensions"):
        plan_share(scores_of(hidden), hidden, {}, 0.2)


def test_the_best_unit_of_each_layer_stays_however_low_its_scores_are(units, sizes):
    lopsided = Scores({key: torch.arange(count) + 100.0 * ("2" in key) for key, count in units.counts.items()})
    plan = plan_share(lopsided, units, sizes, 0.7, "global")
    for key, count in units.counts.items():
        assert len(plan.removed[key]) < count and count - 1 not in plan.removed[key]
