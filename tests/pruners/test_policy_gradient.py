"""Keep probabilities learned by forward passes: the projection, the estimator, the learner, the pruner."""

import itertools
import math

import pytest
import torch
from helpers.models import equal, tiny_llama, tiny_tokens
from scipy.optimize import brentq

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.pruners import policy_gradient as module
from mpstudy.pruners.policy_gradient import (
    Learner,
    Policy,
    estimate,
    policy_gradient,
    project,
)
from mpstudy.store.state import State
from mpstudy.structure.plan import make_plan
from mpstudy.structure.shares import plan_share, unit_sizes
from mpstudy.structure.units import prunable_units


def draws(number: int, size: int, spread: float = 1.0):
    generator = torch.Generator().manual_seed(number)
    return 0.5 + spread * torch.randn(size, dtype=torch.float64, generator=generator)


# ---- the projection


def exactly(s: torch.Tensor, total: float) -> torch.Tensor:
    """By sorting: the sum of clamp(s - v, 0, 1) is linear in v between the breakpoints s and s - 1."""
    points = torch.cat([s, s - 1]).sort().values
    sums = torch.stack([(s - v).clamp(0, 1).sum() for v in points])
    right = int((sums > total).sum())  # the first breakpoint whose sum is at most total
    if right == 0:
        return (s - points[0]).clamp(0, 1)
    low, high, above, below = points[right - 1], points[right], sums[right - 1], sums[right]
    return (s - (low + (high - low) * (above - total) / (above - below))).clamp(0, 1)


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 30.0])
@pytest.mark.parametrize("size", [1, 2, 7, 200])
def test_the_projection_is_that_of_an_exact_solver(size, spread):
    for number in range(10):
        s = draws(number, size, spread)
        for total in sorted({1, size // 3 + 1, size - 1, size} - {0}):
            found = project(s, total)
            torch.testing.assert_close(found, exactly(s, total), rtol=0, atol=1e-9)
            assert ((found >= 0) & (found <= 1)).all() and found.sum().item() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("number", range(5))
def test_no_point_of_the_set_is_nearer(number):
    """The projection x of s onto a convex set has (s - x) . (y - x) <= 0 for every y in it."""
    s, found = draws(number, 30), project(draws(number, 30), 12)
    for other in range(50):
        y = project(draws(100 + other, 30, 3.0), 12)
        assert ((s - found) @ (y - found)).item() <= 1e-9


def test_the_shift_is_the_root_that_scipy_finds():
    s = draws(0, 50)
    shift = brentq(lambda v: (s - v).clamp(0, 1).sum().item() - 20, s.min().item() - 1, s.max().item(), xtol=1e-14)
    torch.testing.assert_close(project(s, 20), (s - shift).clamp(0, 1), rtol=0, atol=1e-9)


def test_a_point_of_the_set_stays():
    s = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(project(s, 2), s, rtol=0, atol=1e-12)


# ---- the estimator


def test_estimate_by_hand():
    """K = 2, b = 3: (2 - 3)(1 - 0.2) / 0.4 + (5 - 3)(0 - 0.2) / 0.4 for s = 0.2, and for s = 0.5 (-1)(-1) + 2 (1)."""
    masks = torch.tensor([[True, False], [False, True]])
    s = torch.tensor([0.2, 0.5], dtype=torch.float64)
    found = estimate(masks, torch.tensor([2.0, 5.0], dtype=torch.float64), 3.0, s)
    assert found.tolist() == pytest.approx([-2.0 - 1.0, 1.0 + 2.0], rel=1e-5)


@pytest.mark.parametrize("masks, before", [(2, 0.0), (2, 1.7), (3, -0.4)])
def test_its_mean_over_all_masks_is_the_gradient_times_the_standard_deviation(masks, before):
    """With s fixed, E[g] = sqrt(s (1 - s)) dE[L]/ds K/(K-1) (1 - 1/(5K)): the baseline that is updated before use holds
    a fifth of the losses' mean, the masks' own among them. The signs are those of the gradient.
    """
    n, s = 3, torch.tensor([0.3, 0.8, 0.55], dtype=torch.float64)
    every = torch.tensor(list(itertools.product([False, True], repeat=n)))
    losses = torch.randn(len(every), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chance = torch.where(every, s, 1 - s).prod(dim=1)
    probabilities = s.clone().requires_grad_()
    expected_loss = (torch.where(every, probabilities, 1 - probabilities).prod(dim=1) * losses).sum()
    (gradient,) = torch.autograd.grad(expected_loss, probabilities)
    mean = torch.zeros(n, dtype=torch.float64)
    for drawn in itertools.product(range(len(every)), repeat=masks):
        drawn = list(drawn)
        baseline = before + (losses[drawn].mean().item() - before) / 5
        mean += chance[drawn].prod() * estimate(every[drawn], losses[drawn], baseline, s)
    factor = masks / (masks - 1) * (1 - 1 / (5 * masks))
    torch.testing.assert_close(mean, factor * (s * (1 - s)).sqrt() * gradient, rtol=1e-5, atol=1e-8)


# ---- the learner


def damage(worth: dict, together: float = 0.0):
    """A loss that rises by a unit's worth when it is not kept; the first two of a kind also count together."""

    def loss(mask, step):
        gone = sum(float(worth[kind][~kept].sum()) for kind, kept in mask.items())
        return 2.0 + gone + together * sum(float(not kept[:2].any()) for kept in mask.values())

    return loss


def learned(seed=0, **more):
    worth = {"attention": torch.tensor([0.1, 0.1, 0.9, 0.5, 0.02, 0.3])}
    worth["mlp"] = torch.cat([torch.linspace(0, 0.3, 10), torch.linspace(0.7, 1, 10)])
    learner = Learner(
        {"attention": torch.full((6,), 0.5), "mlp": torch.linspace(0.6, 0.4, 20)},  # the best begin lowest
        {"attention": 3, "mlp": 10},
        Policy(steps=300, lr=0.05, masks=8),
        seed,
    )
    learner.run(damage(worth, **more), State(None, {}))
    return learner


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_the_best_mask(seed):
    learner = learned(seed=seed)
    assert sorted(learner.s["attention"].topk(3).indices.tolist()) == [2, 3, 5]
    assert sorted(learner.s["mlp"].topk(10).indices.tolist()) == list(range(10, 20))
    assert learner.report()["loss_last"] < learner.report()["loss_first"]


def test_it_sees_what_units_are_worth_together():
    """One of the first two heads has to stay, though each alone is worth less than the others."""
    kept = set(learned(together=2.0).s["attention"].topk(3).indices.tolist())
    assert {2, 3} < kept and len(kept & {0, 1}) == 1


def test_the_expected_number_of_units_is_met_at_each_step():
    sums = []
    learner = Learner({"mlp": torch.rand(9)}, {"mlp": 4}, Policy(steps=30, lr=0.5), 0)
    learner.run(
        lambda mask, step: float(mask["mlp"].sum()), State(None, {}), lambda row: sums.append(learner.s["mlp"].sum())
    )
    assert len(sums) == 30 and torch.stack(sums).sub(4).abs().max() < 1e-9


def test_the_rate_falls_as_a_cosine_to_zero():
    """Of the masks 10 and 01 with losses 1 and 0, g is 1 / (2 sqrt(s (1 - s))): s moves by lr / 2 (1 + cos) times g."""
    moves, policy = [], Policy(steps=4, lr=1e-3)
    learner = Learner({"mlp": torch.tensor([0.5, 0.5])}, {"mlp": 1}, policy, 0)
    drawn = iter([(True, False), (False, True)] * 4)
    learner._draw = lambda number: {"mlp": torch.tensor(next(drawn))}
    for _ in range(4):
        before = learner.s["mlp"].clone()
        learner.step(lambda mask, step: float(mask["mlp"][0]))
        gradient = 0.5 / (before[0] * (1 - before[0])).sqrt()
        moves.append((before - learner.s["mlp"])[0] / gradient)
    cosine = [5e-4 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert torch.stack(moves).tolist() == pytest.approx(cosine, rel=1e-5)


def test_the_baseline_is_a_moving_average_with_a_horizon_of_five_that_begins_at_the_first_loss():
    learner = Learner({"mlp": torch.tensor([0.5, 0.5])}, {"mlp": 1}, Policy(steps=3), 0)
    for value, expected in [(10.0, 10.0), (20.0, 12.0), (7.0, 11.0)]:
        assert learner.step(lambda mask, step, value=value: value) == value
        assert learner.baseline == pytest.approx(expected)


# ---- going on


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_EVERY", 3)
    model, rows = tiny_llama(), []
    units = prunable_units(model, "0-1")
    settings = {"steps": 8, "ratio": 0.5, "lr": 0.05, "batch": 2}
    batches = [tiny_tokens(4), tiny_tokens(4, seed=1)]
    whole = policy_gradient(model, batches, units, seed=3, **settings)

    def stop(row):
        rows.append(row["step"])
        if row["step"] == 5:
            raise Stopped

    state = tmp_path / "run.state"
    with pytest.raises(Stopped):
        policy_gradient(model, batches, units, seed=3, log=stop, state=state, **settings)
    again = policy_gradient(
        model, batches, units, seed=3, log=lambda row: rows.append(row["step"]), state=state, **settings
    )
    assert rows == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    assert equal(again, whole) and again.meta == whole.meta
    with pytest.raises(StudyError, match=r"run.state is of another run \(other seed\)"):
        policy_gradient(model, batches, units, seed=4, state=state, **settings)
    with pytest.raises(StudyError, match=r"run.state is of another run \(other tokens\)"):
        policy_gradient(model, batches[:1], units, seed=3, state=state, **settings)


# ---- the pruner


@pytest.mark.parametrize("of", ["units", "parameters"])
def test_its_mask_is_the_plan_at_its_ratio(of):
    """The highest probabilities stay over all layers, and one unit a layer at least."""
    model = tiny_llama(layers=3)
    units = prunable_units(model, "0-2")
    settings = {"steps": 40, "lr": 0.3, "ratio": 0.7, "of": of, "batch": 1}
    scores = pruners.score("policy-gradient", model, [tiny_tokens()], units, **settings)
    if of == "units":
        plan = make_plan(scores, units, 0.7, "global")
    else:
        plan = plan_share(scores, units, unit_sizes(model, units), 0.7, "global")
    for key, value in scores.values.items():
        assert value.max() == 1 and ((value >= 0) & (value <= 1)).all() and len(plan.removed[key]) < len(value)
    assert {scores.meta["of"], scores.meta["ratio"], scores.meta["forwards"]} == {of, 0.7, 80}


@pytest.mark.parametrize("start", ["taylor", "wanda-sp"])
def test_it_starts_in_the_order_of_the_scores_of_another_pruner(start):
    model, batches = tiny_llama(), [tiny_tokens()]
    units = prunable_units(model, "0-1")
    settings = {"steps": 1, "ratio": 0.5, "lr": 1e-9}
    found = policy_gradient(model, batches, units, start=start, **settings)
    of_ratio = {"ratio": 0.5} if start == "wanda-sp" else {}
    scores = pruners.score(start, model, batches, units, **of_ratio)
    for key, value in found.values.items():
        order = scores.values[key].argsort()
        assert (value[order].diff() >= 0).all() and value.unique().numel() > 1


def test_by_default_it_starts_from_wanda_sp_at_its_ratio():
    model, batches = tiny_llama(), [tiny_tokens()]
    units = prunable_units(model, "0-1")
    settings = {"steps": 1, "ratio": 0.5, "lr": 1e-9}
    named = policy_gradient(model, batches, units, start="wanda-sp", **settings)
    assert equal(named, policy_gradient(model, batches, units, **settings))


def test_a_single_unit_stays_and_its_kind_is_not_learned():
    model = tiny_llama(kv_heads=1)
    units = prunable_units(model, "0-1")
    scores = pruners.score("policy-gradient", model, [tiny_tokens()], units, steps=2, ratio=0.5)
    assert scores.values["layers.0.attention"].tolist() == [1.0]
    assert len(make_plan(scores, units, 0.5, "global").removed["layers.0.attention"]) == 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"ratio": 1.0}, r"the pruning ratio must be a number in \[0, 1\), not 1.0"),
        ({"of": "heads"}, "unknown measure of the ratio 'heads'; known: parameters, units"),
        ({"masks": 1}, "masks of pruner 'policy-gradient' must be a whole number of at least 2, not 1"),
        ({"batch": 0}, "batch of pruner 'policy-gradient' must be a whole number of at least 1, not 0"),
        ({"steps": 0}, "steps of pruner 'policy-gradient' must be a whole number of at least 1, not 0"),
        ({"lr": 0.0}, "lr of pruner 'policy-gradient' must be a finite number > 0, not 0.0"),
        ({"start": "magic"}, "unknown start of pruner 'policy-gradient' 'magic'; known: "),
        ({"start": "policy-gradient"}, "unknown start of pruner 'policy-gradient' 'policy-gradient'; known: "),
        ({"ratio": 0.0}, "a ratio of 0.0 of the units removes not one unit"),
        ({"ratio": 0.97}, "removes all units of layers"),
    ],
)
def test_refusals_come_before_any_work(settings, message):
    model = tiny_llama()
    units = prunable_units(model, "0-1")
    with pytest.raises(StudyError, match=message):
        pruners.score("policy-gradient", model, None, units, **settings)


def test_hidden_dimensions_are_refused():
    model = tiny_llama()
    with pytest.raises(StudyError, match="hidden dimensions cannot be masked"):
        pruners.score("policy-gradient", model, [tiny_tokens()], prunable_units(model, "hidden"))
