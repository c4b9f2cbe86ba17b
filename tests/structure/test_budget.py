"""The number of units that a mask takes is the one that plans take."""

import pytest
from helpers.families import tiny_family
from helpers.models import tiny_llama
from helpers.tiny import pruned_model

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.structure.budget import even_removal, of_kinds
from mpstudy.structure.plan import make_plan
from mpstudy.structure.shares import plan_share, unit_sizes
from mpstudy.structure.units import prunable_units

MODELS = {
    "heads": lambda: tiny_llama(layers=3),
    "grouped": lambda: tiny_llama(kv_heads=2),
    "one KV head": lambda: tiny_family("llama", num_key_value_heads=1),
    "uneven": lambda: pruned_model(0.4),
}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4, 0.6])
@pytest.mark.parametrize("name", MODELS)
def test_as_many_as_a_plan_of_any_scores_removes(name, ratio):
    model = MODELS[name]()
    units = prunable_units(model, "0-1")
    scores = pruners.score("random", model, [], units)
    for value in scores.values.values():  # no layer loses all
        value[value.argmax()] = 1e3
    sizes = unit_sizes(model, units)
    plans = {
        "units": make_plan(scores, units, ratio, "global"),
        "parameters": plan_share(scores, units, sizes, ratio, "global"),
    }
    for of, plan in plans.items():
        removed = {key: len(indices) for key, indices in plan.removed.items()}
        assert of_kinds(units, even_removal(model, units, ratio, of)) == of_kinds(units, removed)


def test_by_hand():
    """8 heads of 4 x 48 x 8 parameters and 48 channels of 3 x 48. A quarter is 2 and 12, of the parameters also. A
    fifth of all 19200 parameters is 3840: 2 heads, the nearest to 1.6, have 3072, and 768 are 5 channels of 144.
    """
    model = tiny_llama()
    units = prunable_units(model, "0-1")

    def removed(ratio, of):
        return of_kinds(units, even_removal(model, units, ratio, of))

    assert removed(0.25, "units") == removed(0.25, "parameters") == {"attention": 2, "mlp": 12}
    assert removed(0.2, "units") == {"attention": 1, "mlp": 10}
    assert removed(0.2, "parameters") == {"attention": 2, "mlp": 5}
    assert removed(0.02, "units") == {"mlp": 1}  # of heads not one


def test_it_is_spread_evenly():
    model = tiny_llama(layers=3)
    found = even_removal(model, prunable_units(model, "0-2"), 0.4, "units")
    for kind in ("attention", "mlp"):
        numbers = [found[f"layers.{layer}.{kind}"] for layer in range(3)]
        assert max(numbers) - min(numbers) <= 1 and sum(numbers)


@pytest.mark.parametrize(
    "ratio, of, message",
    [
        (0.0, "units", "a ratio of 0.0 of the units removes not one unit; choose a larger one"),
        (0.001, "parameters", "a ratio of 0.001 of the parameters removes not one unit; choose a larger one"),
        (1.0, "units", r"the pruning ratio must be a number in \[0, 1\), not 1.0"),
        (0.2, "weights", "unknown measure of the ratio 'weights'; known: parameters, units"),
        (0.99, "units", "removes all units of layers"),
    ],
)
def test_refusals(ratio, of, message):
    model = tiny_llama()
    with pytest.raises(StudyError, match=message):
        even_removal(model, prunable_units(model, "0-1"), ratio, of)
