"""The Moreau envelope of a loss: ``L^rho(w) = min_d L(w + d) + ||d||^2 / (2 rho) + eta * sum_g ||d_g||_2``.

With minimiser d* its gradient is ``-d* / rho`` (arXiv 2406.07017). The solvers know nothing about models: vectors are
dictionaries of tensors, the loss is a function that hands its gradient on block by block, the groups are an object that
sums over them. Both are proximal gradient, ``d <- GST_{gamma eta}(d - gamma F)`` with ``F = grad L(w + d) + d / rho``,
and differ in the step gamma and in memory:

* ``spectral`` takes the steps of Barzilai and Borwein (1988), the inverse curvature along the last step, the short one
  of the two where they differ by half (Zhou, Gao and Dai 2006), so that no Lipschitz constant has to be guessed. It
  holds d and one more vector, the last F or step.
* ``plain`` holds d alone and moves each block as soon as its gradient is there. Its step is the inverse of the largest
  curvature seen, estimated from values of the loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from ..errors import StudyError, check_choice
from .groups import Whole

Vector = dict[str, torch.Tensor]
SOLVERS = ("spectral", "plain")
MAX_RESTARTS = 12
STRIDE = 2  # growth of the step where the objective bends down
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
    lowest_curvature: float | None  # of L along the steps; below -1/rho the inner problem is not convex

    def report(self) -> dict:
        """What every score of the envelope carries with it."""
        names = ("residual", "converged", "gradients", "loss_start", "loss_prox", "lowest_curvature")
        traced = {"steps": len(self.residuals), "residuals": list(self.residuals)}
        return {name: getattr(self, name) for name in names} | traced


def prox_point(
    evaluate: Callable, d: Vector, *, rho, max_steps, tol, step_size=None, eta=0.0, groups=None, solver="spectral"
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
    eta, groups: threshold (nats per weight) and groups of the group-sparse envelope, see :mod:`.groups`.
    solver: ``spectral`` or ``plain``.

    Raises
    ------
    StudyError: a loss or gradient that is not finite, or no step size that keeps the objective below L(w).
    """
    check_choice("solver", solver, SOLVERS)
    problem = _Problem(evaluate, d, rho, eta, groups if eta else Whole())
    solve = _spectral if solver == "spectral" else _plain
    return solve(problem, max_steps, tol, step_size or rho / 10)


@dataclass
class _Sums:
    """Inner products over the blocks of one evaluation, and over the step that is taken from it."""

    difference: float = 0.0  # ||d - GST_{rho eta}(d - rho F)||^2, zero at the minimiser
    size: float = 0.0  # ||d||^2
    steep: float = 0.0  # <F, F>
    secant: float = 0.0  # <previous step, F>
    squared: float = 0.0  # <s, s> of the step s from d
    slope: float = 0.0  # <F, s>

    def residual(self) -> float:
        if self.size == 0:
            return 0.0 if self.difference == 0 else math.inf
        return (self.difference / self.size) ** 0.5


@dataclass
class _Block:
    """One block at one point: F and, per group, ``<d, d>``, ``<d, F>`` and ``<F, F>``, from which all else follows."""

    f: Vector
    dd: torch.Tensor
    df: torch.Tensor
    ff: torch.Tensor


@dataclass
class _Problem:
    evaluate: Callable
    d: Vector
    rho: float
    eta: float
    groups: object
    gradients: int = 0
    restarts: int = 0
    last: Vector = field(default_factory=dict)
    lowest_curvature: float = math.inf
    dd: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)  # <d_g, d_g>, carried from step to step

    def gradient(self, consume) -> tuple[float, _Sums]:
        """The loss at d and the sums over the blocks; ``consume(block, sums)`` receives F block by block. With
        ``self.last``, that vector is multiplied with F and then overwritten by it.
        """
        sums = _Sums()
        loss = self.evaluate(self.d, lambda gradient: consume(self._gather(gradient, sums), sums))
        if not math.isfinite(loss):
            raise StudyError(f"the loss is {loss} at step {self.gradients} of the prox solver")
        self.gradients += 1
        return loss, sums

    def _gather(self, gradient: Vector, sums: _Sums) -> _Block:
        totals = torch.zeros(2, self.groups.count(gradient), dtype=torch.float64)
        for piece in self.groups.pieces(gradient):
            f, d = piece.of(gradient), piece.of(self.d)
            totals[:, piece.groups] += inner(f.add_(d, alpha=1 / self.rho), d, f)
            if self.last:
                old = piece.of(self.last)
                sums.secant += float(old.flatten().dot(f.flatten()))
                old.copy_(f)
        if not torch.isfinite(totals).all():
            name = next((n for n, f in gradient.items() if not torch.isfinite(f).all()), next(iter(gradient)))
            raise StudyError(f"the gradient of {name} is not finite at step {self.gradients} of the prox solver")
        df, ff = totals
        f = {name: self.last[name] for name in gradient} if self.last else gradient
        block = _Block(f, self.dd.get(tuple(gradient), 0 * ff), df, ff)
        sums.size += float(block.dd.sum())
        sums.steep += float(ff.sum())
        sums.difference += float(self._step(block, self.rho)[2].sum())
        return block

    def _step(self, block: _Block, gamma: float):
        """Per group: the factor that ``GST_{gamma eta}`` puts on ``d - gamma F``, its norm before, and ``<s, s>`` and
        ``<F, s>`` of the step s.
        """
        dd, df, ff = block.dd, block.df, block.ff
        norm = (dd - 2 * gamma * df + gamma**2 * ff).clamp_min(0).sqrt()
        keep = (1 - gamma * self.eta / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_min(0)
        cut = 1 - keep
        squared = cut**2 * dd + 2 * cut * keep * gamma * df + (keep * gamma) ** 2 * ff
        return keep, norm, squared.clamp_min(0), -cut * df - keep * gamma * ff

    def move(self, block: _Block, gamma: float, sums: _Sums) -> None:
        """``d <- GST_{gamma eta}(d - gamma F)`` in one block. With eta, F is overwritten by the step."""
        keep, norm, squared, slope = self._step(block, gamma)
        self.dd[tuple(block.f)] = (keep * norm) ** 2
        sums.squared += float(squared.sum())
        sums.slope += float(slope.sum())
        if not self.eta:
            for name, f in block.f.items():
                self.d[name].add_(f, alpha=-gamma)
            return
        scale, cut = -gamma * keep, keep - 1
        for piece in self.groups.pieces(block.f):
            f, d = piece.of(block.f), piece.of(self.d)
            d.add_(f.mul_(piece.spread(scale, f)).addcmul_(d, piece.spread(cut, d)))

    def rises(self, loss: float, sums: _Sums, start: float) -> bool:
        return sums.size > 0 and loss + sums.size / (2 * self.rho) > start

    def restart(self, gamma: float) -> float:
        """Back to d = 0 with a quarter of the step."""
        self.restarts += 1
        if self.restarts > MAX_RESTARTS:
            raise StudyError(
                f"the prox solver diverges: no step size down to {gamma:.1e} lowers the loss (rho = {self.rho})"
            )
        self.dd.clear()
        for value in self.d.values():
            value.zero_()
        return gamma / 4


def _spectral(problem: _Problem, max_steps, tol, first) -> ProxResult:
    problem.last = {name: torch.zeros_like(value) for name, value in problem.d.items()}
    blocks = []
    start, sums = problem.gradient(lambda block, _: blocks.append(block))
    loss, gamma, residuals = start, first, []
    while len(residuals) < max_steps:
        for block in blocks:
            problem.move(block, gamma, sums)
        blocks.clear()
        step = sums
        loss, sums = problem.gradient(lambda block, _: blocks.append(block))
        if problem.rises(loss, sums, start):
            gamma, residuals = problem.restart(gamma), []
            blocks.clear()
            _, sums = problem.gradient(lambda block, _: blocks.append(block))
            continue
        residuals.append(sums.residual())
        if residuals[-1] <= tol:
            break
        gamma = _spectral_step(gamma, step, sums, problem)
    return _result(problem, residuals, tol, start, loss)


def _spectral_step(gamma: float, before: _Sums, after: _Sums, problem: _Problem) -> float:
    """The next step from the last one, s, and the change y of F; a longer one where the objective bends down."""
    secant = float(after.secant) * (1 if problem.eta else -gamma)  # without eta the last F is held, not the step
    ss, sy = before.squared, secant - before.slope
    if not ss:
        return gamma
    problem.lowest_curvature = min(problem.lowest_curvature, sy / ss - 1 / problem.rho)
    if sy <= 0:
        return min(STRIDE * gamma, problem.rho)
    if problem.eta:  # s is not along F, so <y, y> is not known
        return ss / sy
    yy = after.steep + before.steep + 2 * secant / gamma
    return sy / yy if sy * sy < ss * yy / 2 else ss / sy


def _plain(problem: _Problem, max_steps, tol, first) -> ProxResult:
    gamma, steepest, residuals, step, before = first, 0.0, [], 0, None
    while True:
        # the last step, and one whose forerunner was good enough, are measured without moving on
        hold = step == max_steps or bool(residuals and residuals[-1] <= tol)
        loss, sums = problem.gradient(partial(_move_on, problem, 0.0 if hold else gamma))
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
        before = objective, sums
        if not hold:
            step += 1


def _move_on(problem: _Problem, gamma: float, block: _Block, sums: _Sums) -> None:
    if gamma:
        problem.move(block, gamma, sums)


def _curvature(objective: float, before: float, step: _Sums) -> float:
    """The curvature along the last step by values of the objective; 0 where they do not tell it from rounding."""
    bend = objective - before - step.slope
    return 2 * bend / step.squared if step.squared and bend > ROUNDING * abs(objective) else 0.0


def _result(problem, residuals, tol, start, loss) -> ProxResult:
    last = residuals[-1] if residuals else math.inf
    lowest = problem.lowest_curvature if math.isfinite(problem.lowest_curvature) else None
    return ProxResult(problem.d, last, last <= tol, problem.gradients, start, loss, tuple(residuals), lowest)


def inner(f: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """``<f_g, x_g>`` of every group g of a piece (., groups, .) for each x of ``others``, float64 (others, groups)."""
    if f.shape[1] == 1:  # the faster way where there is one group
        return torch.stack([f.flatten().dot(x.flatten()) for x in others]).double()[:, None].cpu()
    return torch.stack([(f * x).sum(dim=(0, 2)) for x in others]).double().cpu()
