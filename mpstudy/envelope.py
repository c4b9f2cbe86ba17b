"""The Moreau envelope of a loss: ``L^rho(w) = min_d L(w + d) + ||d||^2 / (2 rho) + eta * sum_g ||d_g||_2``.

With minimiser d* its gradient is ``-d* / rho`` (arXiv 2406.07017). The solvers know nothing about models: vectors are
dictionaries of tensors, the loss is a function that hands its gradient on block by block, the groups are a shrinkage
operator. Both are proximal gradient, ``d <- GST_{gamma eta}(d - gamma F)`` with ``F = grad L(w + d) + d / rho``, and
differ in the step gamma and in memory:

* ``spectral`` takes the step of Barzilai and Borwein (1988), the inverse curvature along the last step, so that no
  Lipschitz constant has to be guessed. It holds d and one more vector, F or the last step s in turns.
* ``plain`` holds d alone and moves each block as soon as its gradient is there. Its step is the inverse of the largest
  curvature seen, estimated from values of the loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .errors import StudyError, check_choice

Vector = dict[str, torch.Tensor]
SOLVERS = ("spectral", "plain")
MAX_RESTARTS = 12
PIECE = 1 << 16
ROUNDING = 3e-6  # relative error of a loss in fp32, with room


@dataclass(frozen=True)
class ProxResult:
    """``d`` approximates the minimiser d*; ``residual`` says how well: ``||d + rho (grad L(w+d) + eta s)|| /
    ||d||``.
    """

    d: Vector
    residual: float
    converged: bool
    gradients: int  # evaluations of the loss and its gradient
    loss_start: float  # L(w), nats
    loss_prox: float  # L(w + d), nats
    residuals: tuple[float, ...]  # after each step

    def report(self) -> dict:
        """What every score of the envelope carries with it."""
        names = ("residual", "converged", "gradients", "loss_start", "loss_prox")
        traced = {"steps": len(self.residuals), "residuals": list(self.residuals)}
        return {name: getattr(self, name) for name in names} | traced


@dataclass
class _Sums:
    """Inner products gathered over the blocks of one evaluation."""

    difference: float = 0.0  # ||d - GST_{rho eta}(d - rho F)||^2, zero at the minimiser
    size: float = 0.0  # ||d||^2
    slope: float = 0.0  # <F, F>
    secant: float = 0.0  # <s, F>

    def residual(self) -> float:
        if self.size == 0:
            return 0.0 if self.difference == 0 else math.inf
        return (self.difference / self.size) ** 0.5


@dataclass
class _Move:
    """What is known of a step s from d: its size and the slope along it."""

    squared: float = 0.0  # <s, s>
    size: float = 0.0  # ||d + s||^2
    slope: float = 0.0  # <F, s> at its start


def prox_point(
    evaluate: Callable, d: Vector, *, rho, max_steps, tol, step_size=None, shrink=None, solver="spectral"
) -> ProxResult:
    """Minimise the envelope's inner problem from d = 0.

    Parameters
    ----------
    evaluate: ``(d, consume) -> loss`` at w + d. It calls ``consume`` once with each block of the gradient (name ->
        tensor); from then on the block of d may be overwritten.
    d: zeros; they are changed in place and become the minimiser.
    rho: radius of the envelope, > 0 (units: weight squared per nat).
    max_steps: at most so many proximal steps. tol: stop at this relative prox residual.
    step_size: first step; the default rho / 10 moves a tenth of the way that the plain gradient would.
    shrink: ``(block, t) -> GST_{t * eta}(block)`` for the group-sparse envelope; ``None`` for eta = 0.
    solver: ``spectral`` or ``plain``.

    Raises
    ------
    StudyError: a loss or gradient that is not finite, or no step size that keeps the objective below L(w).
    """
    check_choice("solver", solver, SOLVERS)
    problem = _Problem(evaluate, d, rho, shrink)
    solve = _spectral if solver == "spectral" else _plain
    return solve(problem, max_steps, tol, step_size or rho / 10)


@dataclass
class _Problem:
    evaluate: Callable
    d: Vector
    rho: float
    shrink: Callable | None
    size: float = 0.0  # ||d||^2
    gradients: int = 0
    restarts: int = 0
    blocks: list[tuple[str, ...]] = field(default_factory=list)

    def gradient(self, consume) -> tuple[float, _Sums]:
        """The loss at d and the sums over the blocks; ``consume(block)`` receives F block by block."""
        sums, blocks = _Sums(), []

        def gather(block: Vector) -> None:
            self._gather(block, sums)
            blocks.append(tuple(block))
            consume(block, sums)

        loss = self.evaluate(self.d, gather)
        if not math.isfinite(loss):
            raise StudyError(f"the loss is {loss} at step {self.gradients} of the prox solver")
        self.gradients, self.blocks = self.gradients + 1, blocks
        return loss, sums

    def _gather(self, block: Vector, sums: _Sums) -> None:
        """Turn the gradient into F in place and add the block to the sums."""
        slope = 0.0
        for name, f in block.items():
            own = square(f.add_(self.d[name], alpha=1 / self.rho))
            if not math.isfinite(own):
                raise StudyError(f"the gradient of {name} is not finite at step {self.gradients} of the prox solver")
            slope += own
        sums.slope += slope
        sums.size = self.size
        if self.shrink is None:
            sums.difference += self.rho**2 * slope
        else:
            trial = self.shrink({n: torch.add(self.d[n], f, alpha=-self.rho) for n, f in block.items()}, self.rho)
            sums.difference += sum(square(trial[name].sub_(self.d[name])) for name in block)

    def move(self, block: Vector, gamma: float, move: _Move) -> None:
        """``d <- GST_{gamma eta}(d - gamma F)`` in one block; F is overwritten by the step s."""
        if self.shrink is None:
            steps = {name: f.mul_(-gamma) for name, f in block.items()}
            squared = sum(square(step) for step in steps.values())
            move.slope -= squared / gamma
        else:
            steps = self.shrink({n: torch.add(self.d[n], f, alpha=-gamma) for n, f in block.items()}, gamma)
            for name, f in block.items():
                move.slope += inner(f, steps[name].sub_(self.d[name]))
                f.copy_(steps[name])
            squared = sum(square(step) for step in steps.values())
        move.squared += squared
        for name, step in steps.items():
            move.size += square(self.d[name].add_(step))

    def rises(self, loss: float, sums: _Sums, start: float) -> bool:
        return sums.size > 0 and loss + sums.size / (2 * self.rho) > start

    def restart(self, gamma: float) -> float:
        """Back to d = 0 with a quarter of the step."""
        self.restarts += 1
        if self.restarts > MAX_RESTARTS:
            raise StudyError(
                f"the prox solver diverges: no step size down to {gamma:.1e} lowers the loss (rho = {self.rho})"
            )
        self.size = 0.0
        for value in self.d.values():
            value.zero_()
        return gamma / 4


def _spectral(problem: _Problem, max_steps, tol, first) -> ProxResult:
    state = {}  # s while F is gathered, F afterwards

    def keep(block: Vector, sums: _Sums) -> None:
        for name, f in block.items():
            if name in state:
                sums.secant += inner(state[name], f)
            state[name] = f

    start, _ = problem.gradient(keep)
    loss, gamma, residuals = start, first, []
    while len(residuals) < max_steps:
        move = _Move()
        for names in problem.blocks:
            problem.move({name: state[name] for name in names}, gamma, move)
        problem.size = move.size
        loss, sums = problem.gradient(keep)
        if problem.rises(loss, sums, start):
            gamma, residuals = problem.restart(gamma), []
            problem.gradient(keep)
            continue
        residuals.append(sums.residual())
        if residuals[-1] <= tol:
            break
        curvature = (sums.secant - move.slope) / move.squared if move.squared else 0.0
        gamma = 1 / curvature if curvature > 0 else gamma
    return _result(problem, residuals, tol, start, loss)


def _plain(problem: _Problem, max_steps, tol, first) -> ProxResult:
    gamma, steepest, residuals, step, before = first, 0.0, [], 0, None
    while True:
        # the last step, and one whose forerunner was good enough, are measured without moving on
        hold = step == max_steps or bool(residuals and residuals[-1] <= tol)
        move = _Move()
        loss, sums = problem.gradient(lambda block, _: None if hold else problem.move(block, gamma, move))  # noqa: B023
        if step == 0:
            start = loss
        elif problem.rises(loss, sums, start):
            gamma, residuals, step, before = problem.restart(gamma), [], 0, None
            continue
        else:
            residuals.append(sums.residual())
        if hold and (step == max_steps or residuals[-1] <= tol):
            return _result(problem, residuals, tol, start, loss)
        objective = loss + sums.size / (2 * problem.rho)
        if before is not None:
            steepest = max(steepest, _curvature(objective, *before))
            gamma = 1 / steepest if steepest else gamma
        before = objective, move
        if not hold:
            problem.size, step = move.size, step + 1


def _curvature(objective: float, before: float, move: _Move) -> float:
    """The curvature along the last step by values of the objective; 0 where they do not tell it from rounding."""
    bend = objective - before - move.slope
    return 2 * bend / move.squared if move.squared and bend > ROUNDING * abs(objective) else 0.0


def _result(problem, residuals, tol, start, loss) -> ProxResult:
    last = residuals[-1] if residuals else math.inf
    return ProxResult(problem.d, last, last <= tol, problem.gradients, start, loss, tuple(residuals))


def square(a: torch.Tensor) -> float:
    """``||a||^2``."""
    return inner(a, a)


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """``<a, b>``, in pieces: one running sum of a million float32 products would err in the fourth digit."""
    pieces = zip(a.flatten().split(PIECE), b.flatten().split(PIECE))
    return sum(float(torch.dot(x, y)) for x, y in pieces)
