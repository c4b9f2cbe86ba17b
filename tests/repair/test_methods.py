"""The repairs of one linear layer, against closed forms, values worked out by hand and sums over explicit inputs."""

import pytest
import torch

from mpstudy.repair import REPAIRS, admm
from mpstudy.repair.sums import InputSums

METHODS = [name for name, record in REPAIRS.items() if record.function]
WITH_STRENGTH = [name for name, record in REPAIRS.items() if record.strength is not None]
KEPT = torch.tensor([True, False, True, True, False, True])


def problem(tokens=200, seed=0):
    """A weight (4, 6), correlated inputs (tokens, 6) with a mean, and their sums."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=generator)
    x = (torch.randn(tokens, 6, generator=generator) @ mixing + 0.5).double()
    return torch.randn(4, 6, generator=generator).double(), x, moments_of(x)


def moments_of(x):
    sums = InputSums.of(torch.nn.Linear(x.shape[1], 1))
    for part in x.split(64):
        sums.add(part)
    return sums


def repaired(name, weight, sums, kept=KEPT, strength=0.1):
    """The whole weight with zeros where columns are gone, and the bias or zeros."""
    found, bias = REPAIRS[name].function(weight, sums, kept, strength)
    whole = torch.zeros_like(weight)
    whole[:, kept] = found
    return whole, weight.new_zeros(len(weight)) if bias is None else bias


def test_sums_are_over_all_batches():
    _, x, sums = problem()
    torch.testing.assert_close(sums.gram, x.t() @ x)
    torch.testing.assert_close(sums.mean, x.mean(0))
    assert sums.gram.dtype == torch.float64 and sums.tokens == 200
    halves = moments_of(x.bfloat16())
    torch.testing.assert_close(halves.gram, x.bfloat16().double().t() @ x.bfloat16().double(), rtol=1e-5, atol=1e-3)


def test_the_error_is_that_of_the_outputs():
    weight, x, sums = problem()
    other, bias = weight * torch.linspace(0.5, 2, 6), torch.tensor([1.0, -2.0, 0.5, 0.0]).double()
    y = x @ weight.t()
    for added in (None, bias):
        lost = x @ other.t() + (0 if added is None else added) - y
        assert sums.error(weight, other, added) == pytest.approx(float(lost.square().sum() / y.square().sum()))
    assert sums.error(torch.zeros_like(weight), torch.zeros_like(weight)) == 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_the_error_falls(name, seed):
    weight, _, sums = problem(seed=seed)
    after = sums.error(weight, *repaired(name, weight, sums))
    assert after < 0.999 * sums.error(weight, weight * KEPT)


@pytest.mark.parametrize("name", METHODS)
def test_removing_nothing_changes_nothing(name):
    weight, _, sums = problem()
    whole, bias = repaired(name, weight, sums, torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(whole, weight, rtol=1e-12, atol=1e-12)
    assert not bias.any()


def test_least_squares_is_ridge_regression_on_the_missing_output():
    """The same by a solver for tall systems: the penalty as further rows of inputs."""
    weight, x, sums = problem()
    inside = x[:, KEPT]
    missing = x @ weight.t() - inside @ weight[:, KEPT].t()
    for strength in (0.0, 0.3):
        penalty = (strength * inside.square().sum(0).mean()).sqrt() * torch.eye(4).double()
        tall = torch.cat([inside, penalty])
        change = torch.linalg.lstsq(tall, torch.cat([missing, torch.zeros(4, 4).double()])).solution.t()
        found, _ = REPAIRS["least-squares"].function(weight, sums, KEPT, strength)
        torch.testing.assert_close(found, weight[:, KEPT] + change, rtol=1e-8, atol=1e-8)


def test_with_orthonormal_inputs_the_missing_output_is_projected():
    """Then the matrix to invert is (1 + lambda) I."""
    weight, x, _ = problem()
    x[:, KEPT] = torch.linalg.qr(x[:, KEPT]).Q
    missing = x[:, ~KEPT] @ weight[:, ~KEPT].t()
    found, _ = REPAIRS["least-squares"].function(weight, moments_of(x), KEPT, 0.5)
    torch.testing.assert_close(found, weight[:, KEPT] + missing.t() @ x[:, KEPT] / 1.5)


def test_two_inputs_by_hand():
    """x = (1, 2), (2, 1): the second column goes. G_11 = 5, G_21 = 4, so 3 becomes 3 + 10 * 4 / (5 + 0.6 * 5) = 8.
    The mean of the second input is 1.5, hence a bias of 15.
    """
    weight, kept = torch.tensor([[3.0, 10.0]]).double(), torch.tensor([True, False])
    sums = moments_of(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    assert REPAIRS["least-squares"].function(weight, sums, kept, 0.6)[0].item() == pytest.approx(8)
    found, bias = REPAIRS["bias"].function(weight, sums, kept, None)
    assert (found.tolist(), bias.tolist()) == ([[3.0]], [15.0])


def test_the_bias_keeps_the_mean_output():
    weight, x, sums = problem()
    whole, bias = repaired("bias", weight, sums)
    assert torch.equal(whole, weight * KEPT)
    torch.testing.assert_close((x @ whole.t() + bias).mean(0), (x @ weight.t()).mean(0))


@pytest.mark.parametrize("name", WITH_STRENGTH)
def test_an_infinite_strength_leaves_the_weights(name):
    weight, _, sums = problem()
    whole, _ = repaired(name, weight, sums, strength=1e12)
    torch.testing.assert_close(whole, weight * KEPT, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_admm_converges_to_least_squares(strength):
    weight, _, sums = problem()
    exact, _ = repaired("least-squares", weight, sums, strength=strength)
    errors = [float((admm.solve(weight, sums, KEPT, strength, n) - exact[:, KEPT]).norm()) for n in (1, 10, 100, 5000)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-8 * errors[0]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("name", METHODS)
def test_neither_the_number_of_tokens_nor_their_scale_matters(name, factor):
    weight, x, sums = problem()
    (whole, bias), (scaled, larger) = (repaired(name, weight, each) for each in (sums, moments_of(factor * x)))
    (twice, again) = repaired(name, weight, moments_of(torch.cat([x, x])))
    for found in (scaled, twice):
        torch.testing.assert_close(found, whole, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(larger, factor * bias)
    torch.testing.assert_close(again, bias)


def test_inputs_that_are_always_zero_cost_nothing():
    weight, x, _ = problem()
    x[:, 0] = 0
    for name in METHODS:
        whole, bias = repaired(name, weight, moments_of(x))
        assert torch.isfinite(whole).all() and torch.isfinite(bias).all()
