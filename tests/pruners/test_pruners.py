"""What all pruners promise, and what tells them apart. Their numbers are checked in ``test_reference`` and
``test_moreau``.
"""

import math

import pytest
import torch
from helpers.models import FEW, bits, distance, equal, same_bits, score, tiny_llama, tiny_tokens

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.pruners import PRUNERS
from mpstudy.pruners.registry import Pruner
from mpstudy.structure.units import prunable_units

WITH_GRADIENTS = sorted(PRUNERS.keys() - {"random", "l1", "l2", "wanda-sp", "flap"})
SEEDED = ["random", *FEW]


@pytest.fixture
def model():
    return tiny_llama(kv_heads=2, bias=True)


@pytest.fixture
def units(model):
    return prunable_units(model, "0-1")


class RaisesLater(list):
    """Batches that can be gone through once only: the second gradient fails."""

    def __iter__(self):
        self.passes = getattr(self, "passes", 0) + 1
        if self.passes > 1:
            raise KeyboardInterrupt
        return super().__iter__()


# ---- what all of them promise


@pytest.mark.parametrize("name", PRUNERS)
def test_scores_are_finite_and_fit_the_units(name, model, units):
    scores = score(name, model, units)
    assert list(scores.values) == list(units.counts)
    for key, value in scores.values.items():
        assert value.shape == (units.counts[key],) and value.dtype == torch.float32 and not value.requires_grad
        assert torch.isfinite(value).all() and value.unique().numel() > 1
        assert (value >= 0).all() or name == "flap"  # standardised
    assert scores.meta["pruner"] == name


@pytest.mark.parametrize("name", PRUNERS)
def test_weights_flags_and_random_state_are_as_before(name, model, units):
    model.lm_head.weight.requires_grad_(False)
    before, flags = bits(model), {n: p.requires_grad for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    score(name, model, units)
    assert same_bits(model, before)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", sorted(FEW))
def test_weights_and_flags_are_as_before_after_an_interruption(name, model, units):
    model.lm_head.weight.requires_grad_(False)
    before, flags = bits(model), {n: p.requires_grad for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        score(name, model, units, batches=RaisesLater([tiny_tokens()]))
    assert same_bits(model, before)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert torch.equal(torch.get_rng_state(), state)


def test_taylor_restores_the_flags_when_the_second_batch_fails(model, units):
    def batches():
        yield tiny_tokens()
        raise KeyboardInterrupt

    class Failing(list):
        __iter__ = lambda self: batches()  # noqa: E731

    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    with pytest.raises(KeyboardInterrupt):
        score("taylor", model, units, batches=Failing([0, 0]))
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags


@pytest.mark.parametrize("name", PRUNERS)
def test_same_seed_same_scores(name, model, units):
    assert equal(score(name, model, units, seed=7), score(name, model, units, seed=7))


@pytest.mark.parametrize("name", PRUNERS)
def test_other_seed_other_scores_only_where_something_is_drawn(name, model, units):
    assert equal(score(name, model, units, seed=1), score(name, model, units, seed=2)) == (name not in SEEDED)


@pytest.mark.parametrize("name", PRUNERS)
def test_bfloat16_model(name):
    model = tiny_llama(kv_heads=2).to(torch.bfloat16)
    scores = score(name, model, prunable_units(model, "0-1"))
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in scores.values.values())


@pytest.mark.parametrize("name", ["taylor", "moreau", "moreau-gs"])
def test_bfloat16_scores_are_near_those_in_float32(name):
    exact, coarse = tiny_llama(), tiny_llama().to(torch.bfloat16)
    units = prunable_units(exact, "0-1")
    settings = {} if name == "taylor" else {"max_steps": 30}
    assert distance(score(name, coarse, units, **settings), score(name, exact, units, **settings)) < 0.05


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_model_with_a_nan_weight(name, model, units):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(StudyError, match="the loss is nan at step 0, batch 0"):
        score(name, model, units)


def test_taylor_by_parts_is_the_mean_over_the_rows(model, units):
    """10 rows in parts of 4, 4 and 2, which weigh by their rows, however they come in batches."""
    rows = tiny_tokens(samples=10)
    each = [score("taylor", model, units, [part]).values for part in rows.split(4)]
    for batches in ([rows], list(rows.split(5))):
        found = score("taylor-parts", model, units, batches, rows=4)
        for key, values in found.values.items():
            wanted = 0.4 * each[0][key] + 0.4 * each[1][key] + 0.2 * each[2][key]
            torch.testing.assert_close(values, wanted)
        assert found.meta["gradients"] == 3
        assert found.meta["loss"] == pytest.approx(score("taylor", model, units, [rows]).meta["loss"])


def test_taylor_in_one_part_is_taylor(model, units):
    rows = tiny_tokens(samples=3)
    whole, parts = score("taylor", model, units, [rows]), score("taylor-parts", model, units, [rows], rows=3)
    assert equal(whole, parts)
    with pytest.raises(StudyError, match="rows of pruner 'taylor-parts' must be a whole number of at least 1, not 0"):
        score("taylor-parts", model, units, [rows], rows=0)


# ---- the registry


def test_unknown_pruner():
    with pytest.raises(StudyError, match="unknown pruner 'magic'; known: .*l1, l2, moreau, moreau-gs, moreau-release"):
        pruners.score("magic", None, None, None)


@pytest.mark.parametrize("name, setting", [("moreau", "lambda"), ("taylor", "rho"), ("moreau", "std"), ("l1", "p")])
def test_unknown_setting(name, setting):
    with pytest.raises(StudyError, match=f"unknown setting of pruner '{name}' '{setting}'; known: "):
        pruners.check_settings(name, {setting: 1.0})


@pytest.mark.parametrize(
    "name, setting, value, rule",
    [
        ("moreau", "rho", "0.1", "a finite number > 0"),
        ("moreau", "rho", True, "a finite number > 0"),
        ("moreau", "rho", None, "a finite number > 0"),
        ("moreau", "max_steps", 10.0, "a whole number of at least 1"),
        ("moreau", "max_steps", True, "a whole number of at least 1"),
        ("moreau", "step_size", "big", "a finite number > 0"),
        ("moreau-release", "proximal", 1, "true or false"),
        ("smoothgrad", "sigma", [0.1], "a finite number >= 0"),
    ],
)
def test_wrong_type(name, setting, value, rule):
    with pytest.raises(StudyError, match=f"{setting} of pruner '{name}' must be {rule}, not "):
        pruners.check_settings(name, {setting: value})


POSITIVE = [("moreau", s) for s in ("rho", "step_size", "tol")] + [("moreau-gs", "rho"), ("moreau-release", "lr")]
NON_NEGATIVE = [("moreau", "sigma"), ("moreau-gs", "eta"), ("smoothgrad", "sigma"), ("moreau-release", "std")]


@pytest.mark.parametrize("name, setting", POSITIVE + NON_NEGATIVE)
def test_value_out_of_range(name, setting):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(StudyError, match=f"{setting} of pruner '{name}' must be a finite number >=? 0, not "):
            pruners.check_settings(name, {setting: value})
    for value in (-1e-9, -1):
        with pytest.raises(StudyError, match=f"{setting} of pruner '{name}' must be a finite number >=? 0, not "):
            pruners.check_settings(name, {setting: value})


@pytest.mark.parametrize("name, setting", POSITIVE + [("moreau", "max_steps"), ("smoothgrad", "steps")])
def test_zero_where_it_has_no_meaning(name, setting):
    with pytest.raises(
        StudyError,
        match=f"{setting} of pruner '{name}' must be a (finite number > 0|whole number of at least 1), not 0",
    ):
        pruners.check_settings(name, {setting: 0})


@pytest.mark.parametrize("name, setting", NON_NEGATIVE)
def test_zero_where_it_has_a_meaning(name, setting):
    pruners.check_settings(name, {setting: 0})


def test_unknown_noise():
    with pytest.raises(StudyError, match="unknown noise of pruner 'moreau' 'uniform'; known: isotropic, relative"):
        pruners.check_settings("moreau", {"noise": "uniform"})


@pytest.mark.parametrize("name", PRUNERS)
def test_defaults_are_accepted(name):
    pruners.check_settings(name, pruners.defaults(name))


def test_settings_of_the_envelope_keep_their_names_order_and_values():
    """Cached scores are keyed by them."""
    expected = {"rho": 0.05, "sigma": 0.0, "noise": "relative", "eta": 0.0, "groups": "units", "max_steps": 30}
    expected |= {"tol": 0.1, "step_size": None, "solver": "spectral", "state_device": None}
    assert list(pruners.defaults("moreau").items()) == list(expected.items())
    assert list(pruners.defaults("moreau-gs").items()) == list((expected | {"eta": 0.002}).items())


def test_settings_of_a_function_are_its_keywords(monkeypatch):
    own = Pruner(lambda model, batches, units, *, seed=0, sharpness=0.5, steps=3: None)
    monkeypatch.setitem(PRUNERS._records, "own", own)
    assert pruners.defaults("own") == {"sharpness": 0.5, "steps": 3}


def test_refused_before_any_work(units):
    with pytest.raises(StudyError, match="rho"):
        pruners.score("moreau", None, [tiny_tokens()], units, rho=-1.0)


@pytest.mark.parametrize("name", PRUNERS)
def test_what_a_pruner_says_it_needs_is_so(name):
    model = tiny_llama()
    units = prunable_units(model, "0-1")
    here, there = (score(name, model, units, [tiny_tokens(seed=seed)], seed=0) for seed in (0, 1))
    assert equal(here, there) != PRUNERS[name].needs_data
    if PRUNERS[name].draws:
        assert not PRUNERS[name].needs_data and not equal(here, score(name, model, units, seed=1))


def test_repetitions_are_those_that_give_other_scores():
    assert PRUNERS["l2"].repetitions([3, 4]) == [3] and PRUNERS["l2"].seed(4) == 0
    assert PRUNERS["taylor"].repetitions([3, 4]) == [3, 4] and PRUNERS["taylor"].seed(4) == 0
    assert PRUNERS["random"].repetitions([3, 4]) == [3, 4] and PRUNERS["random"].seed(4) == 4
