"""The prox solver against closed forms and brute force: nothing here knows about models."""

import math

import pytest
import torch

from mpstudy.errors import StudyError
from mpstudy.gradients.envelope import SOLVERS, prox_point
from mpstudy.gradients.groups import RowGroups, Whole
from mpstudy.gradients.proximal import Problem, inner


def quadratic(a, offset):
    """``L(w + d) = 1/2 (offset + d)^T A (offset + d)`` with offset = w - b, as the solver wants it."""

    def evaluate(d, consume):
        point = offset + d["w"]
        consume({"w": a @ point})
        return 0.5 * float(point @ a @ point)

    return evaluate


def scalar(loss, slope, w):
    """A function of one variable around ``w``, as the solver wants it."""

    def evaluate(d, consume):
        x = w + d["w"].item()
        consume({"w": torch.tensor([slope(x)], dtype=torch.float64)})
        return loss(x)

    return evaluate


def random_problem(seed, size=8):
    """A positive definite matrix with eigenvalues from 0.01 to 100, and an offset."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    a = basis @ torch.diag(torch.logspace(-2, 2, size, dtype=torch.float64)) @ basis.T
    return a, torch.randn(size, generator=generator, dtype=torch.float64)


def solve(evaluate, size, **settings):
    d = {"w": torch.zeros(size, dtype=torch.float64)}
    return prox_point(evaluate, d, **({"max_steps": 2000, "tol": 1e-10} | settings))


def closed_form(a, offset, rho):
    identity = torch.eye(len(offset), dtype=torch.float64)
    return -torch.linalg.solve(identity + rho * a, rho * a @ offset)


@pytest.mark.parametrize("rho", [1e-3, 0.1, 10.0])
def test_quadratic_has_the_closed_form_minimiser_and_gradient(rho):
    a, offset = random_problem(seed=1)
    result = solve(quadratic(a, offset), 8, rho=rho)
    assert result.converged and result.residual <= 1e-10
    torch.testing.assert_close(result.d["w"], closed_form(a, offset, rho), rtol=1e-5, atol=1e-9)
    gradient = a @ torch.linalg.solve(torch.eye(8, dtype=torch.float64) + rho * a, offset)
    torch.testing.assert_close(result.d["w"] / -rho, gradient, rtol=1e-5, atol=1e-9)


def test_loss_at_the_start_and_at_the_prox_point():
    a, offset = random_problem(seed=2)
    result = solve(quadratic(a, offset), 8, rho=0.1)
    moved = offset + closed_form(a, offset, 0.1)
    assert result.loss_start == pytest.approx(0.5 * float(offset @ a @ offset))
    assert result.loss_prox == pytest.approx(0.5 * float(moved @ a @ moved))


def test_gradients_of_nearby_points_differ_by_at_most_their_distance_over_rho():
    a, first = random_problem(seed=3)
    rho = 0.5
    steepest = torch.linalg.eigh(a).eigenvectors[:, -1]
    for shift in (1e-2 * steepest, 1e-2 * random_problem(seed=4)[1]):
        gradients = [solve(quadratic(a, w), 8, rho=rho).d["w"] / -rho for w in (first, first + shift)]
        assert (gradients[1] - gradients[0]).norm() <= shift.norm() / rho * (1 + 1e-6)
    assert (a @ steepest).norm() > 10 / rho  # the plain gradient breaks that bound along the steepest direction


@pytest.mark.parametrize("w", [-2.0, -0.4, 0.3, 1.0, 2.5])
def test_non_convex_function_of_one_variable_agrees_with_brute_force(w):
    # The second derivative of sin(3x) + x^2/10 is at least phi = -8.8: with rho * phi > -1 the minimiser is unique.
    rho = 0.1
    loss = lambda x: math.sin(3 * x) + x * x / 10  # noqa: E731
    result = solve(scalar(loss, lambda x: 3 * math.cos(3 * x) + x / 5, w), 1, rho=rho)
    grid = torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    objective = torch.sin(3 * (w + grid)) + (w + grid) ** 2 / 10 + grid**2 / (2 * rho)
    assert result.d["w"].item() == pytest.approx(grid[objective.argmin()].item(), abs=2e-5)


def separable(curvature, offset):
    """``sum over rows g of curvature_g / 2 ||offset_g + d_g||^2``."""

    def evaluate(d, consume):
        gradient = curvature * (offset + d["w"])
        loss = float((gradient * (offset + d["w"])).sum()) / 2
        consume({"w": gradient})
        return loss

    return evaluate


@pytest.mark.parametrize("solver", SOLVERS)
def test_objective_that_first_bends_down_is_descended_to_its_minimum(solver):
    rho, w = 1.0, 0.1  # at w the second derivative of cos(3x) is -8.6, far below -1/rho
    result = solve(scalar(lambda x: math.cos(3 * x), lambda x: -3 * math.sin(3 * x), w), 1, rho=rho, solver=solver)
    grid = torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    objective = torch.cos(3 * (w + grid)) + grid**2 / (2 * rho)
    assert result.d["w"].item() == pytest.approx(grid[objective.argmin()].item(), abs=2e-5)
    assert solver == "plain" or result.lowest_curvature < -1 / rho


def test_the_curvature_met_lies_between_the_eigenvalues():
    a, offset = random_problem(seed=10)
    lowest, highest = torch.linalg.eigvalsh(a)[[0, -1]].tolist()
    result = solve(quadratic(a, offset), 8, rho=0.3)
    assert lowest <= result.report()["lowest_curvature"] <= highest
    rows = {"w": torch.zeros(8, 1, dtype=torch.float64)}
    column = separable(torch.linspace(1, 4, 8, dtype=torch.float64)[:, None], offset[:, None])
    result = prox_point(column, rows, rho=0.3, max_steps=50, tol=1e-6, eta=0.1, groups=RowGroups(None))
    assert 1 - 1e-9 <= result.lowest_curvature <= 4 + 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
def test_group_sparse_minimiser_of_a_separable_quadratic(solver):
    generator = torch.Generator().manual_seed(5)
    curvature = torch.linspace(0.2, 4, 12, dtype=torch.float64)[:, None]
    offset = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    gradient, rho = curvature * offset, 0.5
    norms = gradient.norm(dim=1, keepdim=True)
    eta = norms.sort(dim=0).values[5:7].mean().item()
    zeros, rows = {"w": torch.zeros_like(offset)}, RowGroups(None)
    settings = {"max_steps": 2000, "tol": 1e-7, "eta": eta, "groups": rows, "solver": solver}
    result = prox_point(separable(curvature, offset), zeros, rho=rho, **settings)
    expected = -(1 - eta / norms).clamp_min(0) * gradient / (curvature + 1 / rho)
    torch.testing.assert_close(result.d["w"], expected, rtol=1e-6, atol=1e-9)
    zero = (result.d["w"] == 0).all(dim=1)
    assert torch.equal(zero, (norms <= eta).squeeze(1)) and zero.sum() == 6


def test_threshold_above_every_gradient_leaves_exactly_nothing():
    offset, curvature = torch.ones(4, 2, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    zeros, settings = {"w": torch.zeros(4, 2).double()}, {"eta": 9.0, "groups": RowGroups(None)}
    result = prox_point(separable(curvature, offset), zeros, rho=0.5, max_steps=5, tol=0.1, **settings)
    assert not result.d["w"].any() and result.residual == 0 and result.converged


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_reported_residual_is_that_of_the_returned_point(solver):
    a, offset = random_problem(seed=6)
    for steps in (1, 2, 7):
        result = solve(quadratic(a, offset), 8, rho=0.3, max_steps=steps, solver=solver)
        d = result.d["w"]
        assert result.residual == pytest.approx(float((d + 0.3 * a @ (offset + d)).norm() / d.norm()), rel=1e-9)
        assert len(result.residuals) == steps


def test_first_step_that_overshoots_is_shortened():
    a, offset = 1e4 * torch.eye(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    result = solve(quadratic(a, offset), 1, rho=1.0, step_size=1.0)
    assert result.converged and result.gradients > len(result.residuals) + 1
    torch.testing.assert_close(result.d["w"], closed_form(a, offset, 1.0))


def test_loss_that_no_step_lowers_is_a_divergence():
    rising = scalar(lambda x: x, lambda x: -1.0, 0.0)  # the gradient points the wrong way
    with pytest.raises(StudyError, match=r"diverges.*rho = 0\.1"):
        solve(rising, 1, rho=0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_is_an_error_with_its_step(value):
    with pytest.raises(StudyError, match=f"the loss is {value} at step 0"):
        solve(scalar(lambda x: value, lambda x: 1.0, 0.0), 1, rho=0.1)
    with pytest.raises(StudyError, match=f"the loss is {value} at step 1"):
        solve(scalar(lambda x: x if x == 0 else value, lambda x: 1.0, 0.0), 1, rho=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradient_that_is_not_finite_is_named_with_its_step(solver):
    bends = scalar(lambda x: x * x, lambda x: 2 * x if x == 1 else math.nan, 1.0)
    with pytest.raises(StudyError, match="the gradient of w is not finite at step 1 of the prox solver"):
        solve(bends, 1, rho=0.1, solver=solver)


def test_max_steps_is_kept_and_said():
    a, offset = random_problem(seed=7)
    result = solve(quadratic(a, offset), 8, rho=10.0, max_steps=3)
    assert len(result.residuals) == 3 and not result.converged and result.residual == result.residuals[-1] > 1e-10
    assert result.report()["converged"] is False


def test_tolerance_ends_the_solver_and_costs_one_gradient_a_step():
    a, offset = random_problem(seed=8)
    result = solve(quadratic(a, offset), 8, rho=0.1, tol=0.1)
    assert result.converged and result.residuals[-1] <= 0.1 and all(r > 0.1 for r in result.residuals[:-1])
    assert result.gradients == 1 + len(result.residuals)


def test_inner_products_are_gathered_over_the_pieces():
    a, b = {"w": torch.full((1000, 1000), 0.1)}, {"w": torch.full((1000, 1000), 0.3)}
    df, ff = sum(inner(piece.of(b), piece.of(a), piece.of(b)) for piece in Whole().pieces(b))[:, 0].tolist()
    assert df == pytest.approx(3e4, rel=1e-4) and ff == pytest.approx(9e4, rel=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_lipschitz_ratio_of_a_quadratic_meets_theory(solver):
    """Along an eigenvector of curvature a, the envelope's gradient changes by a / (1 + rho a) per unit of weight."""
    a, w = random_problem(seed=9)
    values, vectors = torch.linalg.eigh(a)
    for index, rho in ((0, 0.2), (4, 0.05), (7, 0.5)):
        shift = 0.1 * vectors[:, index]
        gradients = [solve(quadratic(a, x), 8, rho=rho, solver=solver).d["w"] / -rho for x in (w, w + shift)]
        ratio = float((gradients[1] - gradients[0]).norm() / shift.norm())
        assert ratio == pytest.approx(float(values[index] / (1 + rho * values[index])), rel=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("start", [(1.6, -2.2), (-0.7, 0.4), (0.2, 2.5)])
def test_non_convex_function_of_two_variables_agrees_with_brute_force(start, solver):
    rho, w = 0.15, torch.tensor(start, dtype=torch.float64)
    loss = lambda x, y: 2 * (x + y).square() + torch.cos(2 * y) + 0.3 * x  # noqa: E731  curvature at least -4 > -1/rho

    def evaluate(d, consume):
        x = (w + d["w"]).requires_grad_()
        value = loss(*x)
        consume({"w": torch.autograd.grad(value, x)[0]})
        return value.item()

    found = solve(evaluate, 2, rho=rho, tol=1e-8, solver=solver).d["w"]
    axis = torch.linspace(-2, 2, 1601, dtype=torch.float64)
    dx, dy = torch.meshgrid(axis, axis, indexing="ij")
    objective = loss(w[0] + dx, w[1] + dy) + (dx.square() + dy.square()) / (2 * rho)
    best = objective.argmin()
    brute = torch.stack([dx.flatten()[best], dy.flatten()[best]])
    torch.testing.assert_close(found, brute, rtol=0, atol=2.6e-3)  # one grid step
    assert evaluate({"w": found}, lambda block: None) + float(found @ found) / (2 * rho) <= objective.min() + 1e-9


def test_an_unknown_solver_is_an_error():
    with pytest.raises(StudyError, match="solver"):
        solve(scalar(lambda x: x * x, lambda x: 2 * x, 1.0), 1, rho=0.1, solver="newton")


# ---- the solvers by hand: state and memory are what the docstrings say


def by_hand(solver, evaluate, d, eta=0.0, groups=None):
    """A solver of ``evaluate`` with radius 0.5, and its state at d = 0."""
    problem = Problem(evaluate, 0.5, eta, groups if eta else Whole())
    method = SOLVERS[solver](problem, 40, 1e-6, 0.005)
    return method, method.init(d)


@pytest.mark.parametrize("solver", SOLVERS)
def test_init_step_and_terminate_are_all_of_a_solver(solver):
    a, offset = random_problem(seed=11)
    d = {"w": torch.zeros(8, dtype=torch.float64)}
    method, state = by_hand(solver, quadratic(a, offset), d)
    passes = [state.gradients]
    while not method.terminate(state):
        state = method.step(state)
        passes.append(state.gradients)
    result = solve(quadratic(a, offset), 8, rho=0.5, max_steps=40, tol=1e-6, step_size=0.005, solver=solver)
    assert torch.equal(d["w"], result.d["w"]) and state.memory.d is d
    assert (state.residuals, state.gradients, state.start) == (result.residuals, result.gradients, result.loss_start)
    assert passes == list(range(passes[0], passes[-1] + 1))  # one pass a step; this problem needs no restart


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_the_spectral_solver_holds_the_last_gradient_or_step_beside_d(eta):
    curvature, offset = torch.linspace(0.2, 4, 6, dtype=torch.float64)[:, None], torch.ones(6, 3, dtype=torch.float64)
    d = {"w": torch.zeros_like(offset)}
    method, state = by_hand("spectral", separable(curvature, offset), d, eta=eta, groups=RowGroups(None))
    held = state.memory.held["w"]
    for _ in range(3):
        f, before, gamma = curvature * (offset + d["w"]) + d["w"] / 0.5, d["w"].clone(), state.gamma
        assert state.blocks[0].f["w"] is held
        torch.testing.assert_close(held, f)
        state = method.step(state)
        s = d["w"] - before
        kept, new = s if eta else f, curvature * (offset + d["w"]) + d["w"] / 0.5
        assert state.at.overlap == pytest.approx(float((kept * new).sum()))
        assert eta or torch.allclose(s, -gamma * f)
        assert state.memory.held["w"] is held and state.memory.d["w"] is d["w"]


def test_the_plain_solver_holds_nothing_beside_d():
    a, offset = random_problem(seed=12)
    method, state = by_hand("plain", quadratic(a, offset), {"w": torch.zeros(8, dtype=torch.float64)})
    while not method.terminate(state):
        assert not state.memory.held
        state = method.step(state)
    assert state.held and state.at.size == pytest.approx(float(state.memory.d["w"].square().sum()), rel=1e-9)
