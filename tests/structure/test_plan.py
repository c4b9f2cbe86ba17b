"""Plans: how many units go, which ones, and what is refused."""

import json

import pytest
import torch
from helpers.models import tiny_llama

from mpstudy.errors import StudyError
from mpstudy.structure.plan import Plan, check_ratio, make_plan, removed_count
from mpstudy.structure.scores import Scores
from mpstudy.structure.units import prunable_units


@pytest.fixture(scope="module")
def units():
    """Layers 0 and 1 with 4 heads of 8 and 10 channels each."""
    return prunable_units(tiny_llama(mlp=10), "0-1")


def scores_of(units, **values):
    """Scores 1 for every unit, except for the sets given as ``l0_mlp=[...]``."""
    found = {key: torch.ones(count) for key, count in units.counts.items()}
    found |= {f"layers.{name[1]}.{name[3:]}": torch.tensor(value) for name, value in values.items()}
    return Scores(found, {"pruner": "by hand"})


@pytest.mark.parametrize(
    "units, width, ratio, count",
    [
        (172, 1, 0.5, 86),
        (172, 1, 0.2, 35),  # 172 - int(137.6)
        (11008, 1, 0.25, 2752),
        (4, 16, 0.2, 0),  # 64 - int(51.2) = 13 channels are less than a head of 16
        (4, 16, 0.25, 1),
        (4, 16, 0.5, 2),
        (32, 128, 0.2, 6),  # 4096 - int(3276.8) = 820 channels, 6.4 heads
        (3, 192, 0.34, 1),  # head groups of three query heads
        (9, 64, 0.2, 1),
        (10, 1, 0.0, 0),
    ],
)
def test_count_by_the_rule_of_llm_pruner(units, width, ratio, count):
    assert removed_count(units, width, ratio) == count


def test_counts_of_a_plan_follow_the_width_of_a_unit(units):
    plan = make_plan(scores_of(units), units, 0.3)
    assert {key: len(removed) for key, removed in plan.removed.items()} == {
        "layers.0.attention": 1,
        "layers.0.mlp": 3,
        "layers.1.attention": 1,
        "layers.1.mlp": 3,
    }
    assert plan.counts == units.counts
    assert plan.meta == {"ratio": 0.3, "scope": "local", "pruner": "by hand"}


def test_lowest_scores_go_in_each_layer(units):
    low = [5.0, 0.5, 7.0, 8.0, 0.1, 9.0, 9.0, 0.2, 9.0, 9.0]
    plan = make_plan(scores_of(units, l0_mlp=low, l1_attention=[2.0, 3.0, 1.0, 4.0]), units, 0.3)
    assert plan.removed["layers.0.mlp"].tolist() == [1, 4, 7]
    assert plan.removed["layers.1.attention"].tolist() == [2]


def test_global_scope_takes_the_total_from_where_scores_are_lowest(units):
    first, second = [0.1 * i for i in range(10)], [10.0 + i for i in range(10)]
    scores = scores_of(units, l0_mlp=first, l1_mlp=second, l0_attention=[3.0, 4.0, 5.0, 6.0], l1_attention=[1.0] * 4)
    plan = make_plan(scores, units, 0.3, scope="global")
    assert plan.removed["layers.0.mlp"].tolist() == [0, 1, 2, 3, 4, 5] and not len(plan.removed["layers.1.mlp"])
    # 64 - int(44.8) = 20 channels of both layers together are two heads of 8
    assert plan.removed["layers.1.attention"].tolist() == [0, 1] and not len(plan.removed["layers.0.attention"])


def test_global_scope_never_weighs_heads_against_channels(units):
    scores = scores_of(units, l0_mlp=[1e-9] * 10, l1_mlp=[1e-8] * 10)
    plan = make_plan(scores, units, 0.3, scope="global")
    by_kind = {kind: sum(len(r) for key, r in plan.removed.items() if kind in key) for kind in ("attention", "mlp")}
    assert by_kind == {"attention": 2, "mlp": 6}


@pytest.mark.parametrize("scope", ["local", "global"])
def test_ties_go_to_the_lower_index(units, scope):
    plan = make_plan(scores_of(units), units, 0.4, scope=scope)
    removed = torch.cat([plan.removed[f"layers.{i}.mlp"] + 10 * i for i in range(2)]).tolist()
    assert removed == ([0, 1, 2, 3, 10, 11, 12, 13] if scope == "local" else [0, 1, 2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1, 2.5, float("nan"), float("inf"), True, "x", None])
def test_ratio_outside_the_range_is_named(units, ratio):
    with pytest.raises(StudyError, match=r"the pruning ratio must be a number in \[0, 1\), not "):
        make_plan(scores_of(units), units, ratio)


@pytest.mark.parametrize("ratio", [0, 0.0, 0.999])
def test_ratio_inside_the_range(ratio):
    assert check_ratio(ratio) == ratio


def test_unknown_scope(units):
    with pytest.raises(StudyError, match="unknown scope 'layer'; known: global, local"):
        make_plan(scores_of(units), units, 0.2, scope="layer")


@pytest.mark.parametrize(
    "ratio, scope, values, message",
    [
        (0.99, "local", {}, "ratio 0.99 with local scope removes all units of layers.0.attention"),
        (0.5, "global", {"l1_attention": [0.1] * 4}, "with global scope removes all units of layers.1.attention"),
        (0.5, "global", {"l0_mlp": [0.1] * 10}, "with global scope removes all units of layers.0.mlp"),
    ],
)
def test_ratio_that_leaves_nothing_of_a_layer(units, ratio, scope, values, message):
    heads, channels = [1.0 + i for i in range(4)], [1.0 + i for i in range(10)]
    rising = {"l0_attention": heads, "l1_attention": heads, "l0_mlp": channels, "l1_mlp": channels}
    with pytest.raises(StudyError, match=message):
        make_plan(scores_of(units, **rising | values), units, ratio, scope=scope)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite(units, bad):
    with pytest.raises(StudyError, match="the scores of layers.1.attention are not finite"):
        make_plan(scores_of(units, l1_attention=[1.0, bad, 1.0, 1.0]), units, 0.2)


def test_scores_of_another_model(units):
    with pytest.raises(StudyError, match=r"layers.0.mlp has 10 units, scores \(7,\)"):
        make_plan(scores_of(units, l0_mlp=[1.0] * 7), units, 0.2)
    without = scores_of(units)
    del without.values["layers.1.mlp"]
    with pytest.raises(StudyError, match="layers.1.mlp has 10 units, scores none"):
        make_plan(without, units, 0.2)


def test_json_round_trip(units, tmp_path):
    plan = make_plan(scores_of(units), units, 0.3)
    plan.save(tmp_path / "plan.json")
    again = Plan.from_json(json.loads((tmp_path / "plan.json").read_text()))
    assert again.counts == plan.counts and again.meta == plan.meta and again.removed.keys() == plan.removed.keys()
    for key, removed in plan.removed.items():
        assert torch.equal(again.removed[key], removed) and again.removed[key].dtype == torch.int64


@pytest.mark.parametrize("indices", [[0, 99], [-1], [1, 1]])
def test_a_plan_with_impossible_units_is_refused(units, indices):
    written = make_plan(scores_of(units), units, 0.3).to_json()
    written["removed"]["layers.1.mlp"] = indices
    with pytest.raises(StudyError, match="removed units of layers.1.mlp must be distinct numbers in 0 to 9"):
        Plan.from_json(written)


def test_set_without_a_removed_unit_survives_json(units):
    plan = make_plan(scores_of(units), units, 0.0)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert all(removed.shape == (0,) and removed.dtype == torch.int64 for removed in again.removed.values())


def test_mask_gives_numpy_arrays(units):
    mask = make_plan(scores_of(units), units, 0.3).mask()
    assert mask.keys() == units.counts.keys() and mask["layers.0.mlp"].tolist() == [0, 1, 2]
    assert all(type(removed).__module__ == "numpy" for removed in mask.values())
