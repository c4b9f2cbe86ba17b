"""Pruning in steps is pruning again what is left."""

import copy

import pytest
import torch
from helpers.models import bits, same_bits, tiny_llama, tiny_tokens

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.structure.iterative import plan_in_steps, replan_in_steps
from mpstudy.structure.plan import make_plan
from mpstudy.structure.surgery import remove_units
from mpstudy.structure.units import prunable_units


def by(name):
    return lambda model, units: pruners.score(name, model, [tiny_tokens()], units)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_one_step_is_the_plain_plan(scope):
    model = tiny_llama()
    units = prunable_units(model, "0-1")
    plan = plan_in_steps(model, by("taylor"), "0-1", 0.25, 1, scope)
    expected = make_plan(by("taylor")(model, units), units, 0.25, scope)
    assert plan.to_json() == expected.to_json()


@pytest.mark.parametrize("scope", ["local", "global"])
def test_two_steps_remove_from_what_the_first_left(scope):
    model = tiny_llama()
    before = bits(model)
    plan = plan_in_steps(model, by("taylor"), "0-1", 0.25, 2, scope)
    assert same_bits(model, before)
    first = plan_in_steps(model, by("taylor"), "0-1", 0.125, 1, scope)
    half = remove_units(copy.deepcopy(model), first)
    units = prunable_units(half, "0-1")
    scores = by("taylor")(half, units)
    for key, removed in plan.removed.items():
        gone, all_removed = set(first.removed[key].tolist()), set(removed.tolist())
        assert gone <= all_removed
        left = [index for index in range(plan.counts[key]) if index not in gone]
        kept, more = (
            [scores.values[key][i] for i, unit in enumerate(left) if (unit in all_removed) is removed_too]
            for removed_too in (False, True)
        )
        assert scope == "global" or not more or max(more) <= min(kept)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_the_steps_end_at_the_ratio(steps, ratio):
    plan = plan_in_steps(tiny_llama(), by("l2"), "0-1", ratio, steps)
    assert {key: len(removed) for key, removed in plan.removed.items()} == {
        "layers.0.attention": 4 * ratio, "layers.0.mlp": 24 * ratio,
        "layers.1.attention": 4 * ratio, "layers.1.mlp": 24 * ratio,
    }  # fmt: skip


def test_magnitude_does_not_change_with_the_steps():
    """No score of l2 depends on what else is removed, so the steps change nothing."""
    model = tiny_llama()
    one, four = (plan_in_steps(model, by("l2"), "0-1", 0.5, steps) for steps in (1, 4))
    assert all(torch.equal(four.removed[key], removed) for key, removed in one.removed.items())


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_steps_are_counted_from_one(steps):
    with pytest.raises(StudyError, match="steps must be a whole number of at least 1"):
        plan_in_steps(tiny_llama(), by("l2"), "0-1", 0.5, steps)


def test_replanned_in_one_step_it_is_the_same_plan():
    model = tiny_llama()
    units = prunable_units(model, "0-1")
    plan = make_plan(by("taylor")(model, units), units, 0.5)
    again = replan_in_steps(plan, model, by("taylor"), "0-1", 1)
    assert all(torch.equal(again.removed[key], removed) for key, removed in plan.removed.items())
    assert again.meta == plan.meta | {"steps": 1} and again.counts == plan.counts


def test_replanned_in_steps_it_keeps_the_numbers_and_asks_anew():
    model, asked = tiny_llama(), []
    units = prunable_units(model, "0-1")
    plan = make_plan(by("taylor")(model, units), units, 0.5)

    def score(smaller, units):
        asked.append(dict(units.counts))
        return by("taylor")(smaller, units)

    before = bits(model)
    again = replan_in_steps(plan, model, score, "0-1", 2)
    assert same_bits(model, before)
    assert {key: len(removed) for key, removed in again.removed.items()} == {
        key: len(removed) for key, removed in plan.removed.items()
    }
    assert [counts["layers.0.mlp"] for counts in asked] == [24, 18]
    assert [counts["layers.1.attention"] for counts in asked] == [4, 3]
    first = replan_in_steps(plan, model, by("l2"), "0-1", 1)  # no score of l2 depends on what else is gone
    assert first.to_json()["removed"] == replan_in_steps(plan, model, by("l2"), "0-1", 4).to_json()["removed"]
    with pytest.raises(StudyError, match="steps must be a whole number of at least 1"):
        replan_in_steps(plan, model, score, "0-1", 0)
