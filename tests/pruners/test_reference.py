"""Scores and removed units against those of the released code of LLM-Pruner and MoreauPruner (see ``reference``)."""

import pytest
import torch
from helpers.models import CASES, LAYERS, reference_arrays, reference_model

from mpstudy import pruners
from mpstudy.structure.plan import make_plan
from mpstudy.structure.units import prunable_units

# Ten shrinking steps that flip the sign of rows amplify rounding: compared with the mean score instead.
AMPLIFIED = {"moreau_official"}


@pytest.fixture(scope="module")
def reference():
    arrays = reference_arrays()
    model = reference_model(arrays)
    return arrays, model, prunable_units(model, LAYERS)


@pytest.fixture(scope="module")
def scores(reference):
    arrays, model, units = reference
    batches = [arrays["tokens"].long()]
    return {
        name: pruners.score(case["pruner"], model, batches, units, seed=case["seed"], **case["settings"])
        for name, case in CASES.items()
    }


def test_logits_of_the_dense_model(reference):
    arrays, model, _ = reference
    with torch.no_grad():
        logits = model(arrays["tokens"].long()).logits[:, ::8]
    torch.testing.assert_close(logits, arrays["logits"], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_released_code(reference, scores, case):
    arrays, _, units = reference
    for unit_set in units:
        expected = arrays[f"scores/{case}/{unit_set.key}"]
        # A signed sum near zero rounds at the size of its terms, which only the mean score tells.
        tolerance = {"rtol": 1e-4, "atol": 1e-5 * expected.mean().item()}
        if case in AMPLIFIED:
            tolerance = {"rtol": 0.0, "atol": 1e-2 * expected.mean().item()}
        torch.testing.assert_close(scores[case].values[unit_set.key], expected, **tolerance)


# Left out: two scores at the border of the removed set differ by 8e-5 there, less than the rounding.
BY_RATIO = [
    (case, ratio) for case in CASES for ratio in CASES[case]["removed"] if (case, ratio) != ("moreau_official", "0.2")
]


@pytest.mark.parametrize("case, ratio", BY_RATIO)
def test_removed_units_are_those_of_the_released_code(reference, scores, case, ratio):
    plan = make_plan(scores[case], reference[2], float(ratio))
    removed = {key: indices.tolist() for key, indices in plan.removed.items() if len(indices)}
    assert removed == CASES[case]["removed"][ratio]
