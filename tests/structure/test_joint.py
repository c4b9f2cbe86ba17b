"""Plans by one threshold over heads and channels: numbers worked out by hand, and the parameters that really go."""

import pytest
import torch
from helpers.models import tiny_llama

from mpstudy.errors import StudyError
from mpstudy.evaluation.cost import parameter_count
from mpstudy.structure import surgery
from mpstudy.structure.joint import plan_joint
from mpstudy.structure.scores import Scores
from mpstudy.structure.shares import unit_sizes
from mpstudy.structure.units import prunable_units

HEADS, CHANNELS = [0.1, 5.0], [0.0, 0.2, 0.3, 6.0]
SIZES = {f"layers.{layer}.{kind}": size for layer in (0, 1) for kind, size in (("attention", 10), ("mlp", 2))}


@pytest.fixture(scope="module")
def units():
    """Two layers of 2 heads and 4 channels; at 10 a head and 2 a channel they cost 56."""
    return prunable_units(tiny_llama(heads=2, kv_heads=2, mlp=4), "0-1")


def scores_of(first, second) -> Scores:
    keys = list(SIZES)
    return Scores({key: torch.tensor(value) for key, value in zip(keys, [*first, *second])}, {"pruner": "by hand"})


BY_HAND = scores_of((HEADS, CHANNELS), ([3.0, 4.0], [0.05, 1.0, 2.0, 7.0]))
# In order: channel 0 of layer 0 (2 in sum), channel 0 of layer 1 (4), head 0 of layer 0 (14), channels 1 and 2 of
# layer 0 (16, 18), 1 and 2 of layer 1 (20, 22), head 0 of layer 1 (32); the others stay.


@pytest.mark.parametrize(
    "cost, heads, channels",
    [
        (0.0, ([], []), ([], [])),
        (0.9, ([], []), ([], [])),
        (1.1, ([], []), ([0], [])),
        (8.9, ([], []), ([0], [0])),  # nearer to 4 than to 14
        (9.1, ([0], []), ([0], [0])),
        (16.0, ([0], []), ([0, 1], [0])),
        (22.0, ([0], []), ([0, 1, 2], [0, 1, 2])),
        (26.9, ([0], []), ([0, 1, 2], [0, 1, 2])),
        (27.1, ([0], [0]), ([0, 1, 2], [0, 1, 2])),
    ],
)
def test_the_threshold_by_hand(units, cost, heads, channels):
    plan = plan_joint(BY_HAND, units, SIZES, cost / 56)
    removed = {key: indices.tolist() for key, indices in plan.removed.items()}
    expected = {f"layers.{layer}.attention": heads[layer] for layer in (0, 1)}
    assert removed == expected | {f"layers.{layer}.mlp": channels[layer] for layer in (0, 1)}
    assert plan.counts == units.counts and plan.meta == {"ratio": cost / 56, "scope": "joint", "pruner": "by hand"}


def test_ties_go_to_the_unit_that_comes_first_and_the_last_of_a_set_stays(units):
    plan = plan_joint(scores_of(([1.0] * 2, [1.0] * 4), ([1.0] * 2, [1.0] * 4)), units, SIZES, 26 / 56)
    assert {key: indices.tolist() for key, indices in plan.removed.items()} == {
        "layers.0.attention": [0], "layers.0.mlp": [0, 1, 2], "layers.1.attention": [0], "layers.1.mlp": [],
    }  # fmt: skip


def test_the_best_of_each_kind_in_each_layer_stays(units):
    plan = plan_joint(scores_of(([-9.0, -8.0], [-7.0] * 4), (HEADS, CHANNELS)), units, SIZES, 16 / 56)
    assert plan.removed["layers.0.attention"].tolist() == [0] and plan.removed["layers.0.mlp"].tolist() == [0, 1, 2]
    assert not len(plan.removed["layers.1.attention"]) and not len(plan.removed["layers.1.mlp"])


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_the_parameters_that_go_are_the_ratio_to_half_a_unit(ratio):
    model = tiny_llama(layers=3, mlp=40, kv_heads=2, bias=True)
    units = prunable_units(model, "0-2")
    generator = torch.Generator().manual_seed(0)
    scores = Scores({key: torch.randn(count, generator=generator) for key, count in units.counts.items()})
    sizes = unit_sizes(model, units)
    plan = plan_joint(scores, units, sizes, ratio)
    whole = sum(sizes[key] * count for key, count in units.counts.items())
    gone = parameter_count(model) - parameter_count(surgery.remove_units(model, plan))
    assert abs(gone - ratio * whole) <= max(sizes.values()) / 2
    low = [float(scores.values[key][plan.removed[key]].max()) for key in units.counts if len(plan.removed[key])]
    high = []
    for key, value in scores.values.items():
        kept = value.clone()
        kept[plan.removed[key]] = torch.inf
        kept[value.argmax()] = torch.inf
        high.append(float(kept.min()))
    assert max(low) < min(high)  # one threshold


def test_a_ratio_that_cannot_be_met(units):
    message = (
        "ratio 0.7 with joint scope cannot be met: with the best unit of each kind kept in every layer at most 0.571"
    )
    with pytest.raises(StudyError, match=message):
        plan_joint(BY_HAND, units, SIZES, 0.7)
    assert sum(map(len, plan_joint(BY_HAND, units, SIZES, 0.6).removed.values())) == 8


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan"), "x"])
def test_a_ratio_outside_the_range(units, ratio):
    with pytest.raises(StudyError, match=r"the pruning ratio must be a number in \[0, 1\), not "):
        plan_joint(BY_HAND, units, SIZES, ratio)


def test_hidden_dimensions_and_scores_of_another_model_are_refused(units):
    hidden = prunable_units(tiny_llama(), "hidden")
    with pytest.raises(StudyError, match="hidden dimensions have nothing beside them"):
        plan_joint(Scores({"hidden": torch.rand(48)}), hidden, {}, 0.2)
    with pytest.raises(StudyError, match="layers.1.mlp has 4 units, scores none"):
        plan_joint(Scores({key: BY_HAND.values[key] for key in list(SIZES)[:3]}), units, SIZES, 0.2)
