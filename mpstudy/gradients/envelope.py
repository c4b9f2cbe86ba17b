"""The Moreau envelope of a loss: ``L^rho(w) = min_d L(w + d) + ||d||^2 / (2 rho) + eta * sum_g ||d_g||_2``.

With minimiser d* its gradient is ``-d* / rho`` (arXiv 2406.07017). The solvers know nothing about models: vectors are
dictionaries of tensors, the loss is a function that hands its gradient on block by block, the groups are an object that
sums over them. Both are proximal gradient, ``d <- GST_{gamma eta}(d - gamma F)`` with ``F = grad L(w + d) + d / rho``,
and differ in the step gamma and in memory:

* :class:`Spectral` takes the steps of Barzilai and Borwein (1988), the inverse curvature along the last step, the short
  one of the two where they differ by half (Zhou, Gao and Dai 2006), so that no Lipschitz constant has to be guessed. It
  holds d and one more vector, the last F or step.
* :class:`Plain` holds d alone and moves each block as soon as its gradient is there. Its step is the inverse of the
  largest curvature seen, estimated from values of the loss.

A solver is three functions: ``init(d) -> state``, ``step(state) -> state`` and ``terminate(state) -> bool``; it keeps
nothing itself. A step replaces all of the state but its vectors, which it changes in place:
:mod:`mpstudy.gradients.proximal` draws which buffer holds what when.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch

from ..errors import StudyError, check_choice
from .groups import Groups, Whole
from .proximal import Block, Measured, Memory, Moved, Problem, Vector, measure, move

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
    evaluate: Callable[[Vector, Callable[[Vector], None]], float],
    d: Vector,
    *,
    rho: float,
    max_steps: int,
    tol: float,
    step_size: float | None = None,
    eta: float = 0.0,
    groups: Groups | None = None,
    solver: str = "spectral",
) -> ProxResult:
    """Minimise the envelope's inner problem ``L(w + d) + ||d||^2 / (2 rho) + eta * sum_g ||d_g||_2`` from d = 0.

    Parameters
    ----------
    evaluate: ``(d, consume) -> loss`` (nats) at w + d. It calls ``consume`` once with each block of the gradient (name
        -> tensor, nats per weight), which becomes the solver's; from then on the block of d may be overwritten.
    d: zeros; they are changed in place and become the minimiser.
    rho: radius of the envelope, > 0 (units: weight squared per nat).
    max_steps: at most so many proximal steps. tol: stop at this relative prox residual.
    step_size: first step (weight squared per nat); the default rho / 10 moves a tenth of the way that the plain
        gradient would.
    eta, groups: threshold (nats per weight) and groups of the group-sparse envelope, see :mod:`.groups`.
    solver: ``spectral`` or ``plain``.

    Raises
    ------
    StudyError: a loss or gradient that is not finite, or no step size that keeps the objective below L(w).
    """
    check_choice("solver", solver, SOLVERS)
    problem = Problem(evaluate, rho, eta, groups if eta else Whole())  # type: ignore[arg-type]
    method = SOLVERS[solver](problem, max_steps, tol, step_size or rho / 10)
    state = method.init(d)
    while not method.terminate(state):
        state = method.step(state)
    last = state.residuals[-1] if state.residuals else math.inf
    lowest = state.lowest_curvature if math.isfinite(state.lowest_curvature) else None
    return ProxResult(d, last, last <= tol, state.gradients, state.start, state.at.loss, state.residuals, lowest)


@dataclass(frozen=True)
class State:
    """Where a solver is between two steps."""

    memory: Memory  # changed in place
    gamma: float  # the next step (weight squared per nat)
    at: Measured = field(default_factory=Measured)  # what the last pass found
    start: float = math.nan  # L(w), nats
    residuals: tuple[float, ...] = ()  # after each step from d = 0
    gradients: int = 0  # passes, restarts included
    restarts: int = 0
    lowest_curvature: float = math.inf  # of L along the steps, restarts included


@dataclass(frozen=True)
class SpectralState(State):
    """``at`` is measured at d, and the step from there is yet to be taken."""

    blocks: tuple[Block, ...] = ()  # F at d, in ``memory.held``


@dataclass(frozen=True)
class PlainState(State):
    """``at`` was measured at the point from which the last step, ``moved``, led to d."""

    moved: Moved = field(default_factory=Moved)
    moves: int = 0  # from d = 0
    held: bool = False  # the last step measured only: ``at`` is measured at d
    steepest: float = 0.0  # largest curvature of the objective along the steps


S = TypeVar("S", bound=State)


@dataclass(frozen=True)
class Solver(ABC, Generic[S]):
    """What a solver is: ``init``, ``step`` until ``terminate``."""

    problem: Problem
    max_steps: int
    tol: float
    first: float  # step (weight squared per nat)

    @abstractmethod
    def init(self, d: Vector) -> S:
        """The state at d = 0; d becomes part of its memory."""

    @abstractmethod
    def step(self, state: S) -> S:
        """One pass on, or back at d = 0 where the objective rose above L(w). ``state`` must not be used again."""

    @abstractmethod
    def terminate(self, state: S) -> bool:
        """Whether d is good enough or the steps are used up; then ``state.at`` was measured at d."""

    def converged(self, state: State) -> bool:
        return bool(state.residuals and state.residuals[-1] <= self.tol)

    def restart(self, state: S, **changes: Any) -> S:
        """Back to d = 0 with a quarter of the step."""
        if state.restarts == MAX_RESTARTS:
            raise StudyError(
                f"the prox solver diverges: no step size down to {state.gamma:.1e} lowers the loss "
                f"(rho = {self.problem.rho})"
            )
        state.memory.clear()
        return replace(state, gamma=state.gamma / 4, residuals=(), restarts=state.restarts + 1, **changes)


class Spectral(Solver[SpectralState]):
    """A step moves all blocks, then measures: the next step size needs the products of the whole vectors."""

    def init(self, d: Vector) -> SpectralState:
        memory = Memory(d, {name: torch.zeros_like(value) for name, value in d.items()}, {})
        state = self._measure(SpectralState(memory, self.first))
        return replace(state, start=state.at.loss)

    def step(self, state: SpectralState) -> SpectralState:
        moved = Moved()
        for block in state.blocks:
            move(self.problem, state.memory, block, state.gamma, moved)
        new = self._measure(state)
        if self.problem.rises(new.at, new.start):
            return self._measure(self.restart(new))
        new = replace(new, residuals=(*new.residuals, new.at.residual()))
        if self.converged(new):
            return new
        gamma, curvature = _spectral_step(self.problem, state.gamma, state.at, moved, new.at)
        return replace(new, gamma=gamma, lowest_curvature=min(new.lowest_curvature, curvature))

    def terminate(self, state: SpectralState) -> bool:
        return len(state.residuals) >= self.max_steps or self.converged(state)

    def _measure(self, state: SpectralState) -> SpectralState:
        blocks: list[Block] = []
        at = measure(self.problem, state.memory, state.gradients, blocks.append)
        return replace(state, at=at, blocks=tuple(blocks), gradients=state.gradients + 1)


def _spectral_step(
    problem: Problem, gamma: float, before: Measured, moved: Moved, after: Measured
) -> tuple[float, float]:
    """The next step from the last one, s, and the change y of F, a longer one where the objective bends down; and the
    curvature of L along s.
    """
    secant = after.overlap * (1 if problem.eta else -gamma)  # <s, F>; without eta the last F is held, s = -gamma F
    ss, sy = moved.squared, secant - moved.slope
    if not ss:
        return gamma, math.inf
    curvature = sy / ss - 1 / problem.rho
    if sy <= 0:
        return min(STRIDE * gamma, problem.rho), curvature
    if problem.eta:  # s is not along F, so <y, y> is not known
        return ss / sy, curvature
    yy = after.steep + before.steep + 2 * secant / gamma
    return (sy / yy if sy * sy < ss * yy / 2 else ss / sy), curvature


class Plain(Solver[PlainState]):
    """A step measures a point and moves on in the same pass. The last point, and one whose forerunner was good enough,
    is measured without moving on, so that d is the point that the residual speaks of.
    """

    def init(self, d: Vector) -> PlainState:
        return PlainState(Memory(d, {}, {}), self.first)

    def step(self, state: PlainState) -> PlainState:
        hold, moved = self._enough(state), Moved()

        def receive(block: Block) -> None:
            if not hold:
                move(self.problem, state.memory, block, state.gamma, moved)

        at = measure(self.problem, state.memory, state.gradients, receive)
        moves = state.moves + (0 if hold else 1)
        new = replace(state, at=at, moved=moved, moves=moves, held=hold, gradients=state.gradients + 1)
        if state.moves == 0:
            return replace(new, start=at.loss)
        if self.problem.rises(at, state.start):
            return self.restart(new, moves=0, held=False)
        bend = _curvature(self.problem.smooth(at), self.problem.smooth(state.at), state.moved)
        steepest = max(state.steepest, bend)
        gamma = 1 / steepest if steepest else state.gamma
        return replace(new, residuals=(*state.residuals, at.residual()), steepest=steepest, gamma=gamma)

    def terminate(self, state: PlainState) -> bool:
        return state.held and self._enough(state)

    def _enough(self, state: PlainState) -> bool:
        return state.moves == self.max_steps or self.converged(state)


def _curvature(objective: float, before: float, step: Moved) -> float:
    """The curvature along the last step by values of the objective; 0 where they do not tell it from rounding."""
    bend = objective - before - step.slope
    return 2 * bend / step.squared if step.squared and bend > ROUNDING * abs(objective) else 0.0


SOLVERS: dict[str, type[Solver]] = {"spectral": Spectral, "plain": Plain}
