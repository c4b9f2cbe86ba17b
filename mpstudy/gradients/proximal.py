"""One pass of proximal gradient over the blocks of a vector: what the solvers of :mod:`.envelope` share.

The problem is ``min_d L(w + d) + ||d||^2 / (2 rho) + eta * sum_g ||d_g||_2``; ``F = grad L(w + d) + d / rho`` is the
gradient of its smooth part. A proximal step is ``d <- GST_{gamma eta}(d - gamma F)`` with the group soft threshold
``GST_t(v)_g = max(0, 1 - t / ||v_g||) v_g``. All that it needs to know of the vectors are three numbers a group,
``<d, d>``, ``<d, F>`` and ``<F, F>``, so that each vector is read once and no result is held: the algebra
(:meth:`Problem.step`) is pure and works on these numbers, :func:`measure` and :func:`move` work on the vectors.

Who holds what, block by block (``=`` is the same memory, ``g`` the block that the loss hands over)::

                                     d         held              g                   Block.f
    spectral
      before the pass at d_k         d_k       F_k-1 (eta: s)    -                   -
      measure                        d_k       F_k = copy of g   grad -> F_k, freed  = held
      move, eta = 0                  d_k+1     F_k               -                   dropped
      move, eta > 0                  d_k+1     s = d_k+1 - d_k   -                   dropped
    plain
      before the pass at d_k         d_k       none              -                   -
      measure                        d_k       none              grad -> F_k         = g
      move, at once, in the pass     d_k+1     none              freed (eta: s)      dropped

So between two passes ``spectral`` holds two vectors of the weights' size and ``plain`` one, and within a pass one block
more. ``measure`` multiplies F_k with what ``held`` still holds (:attr:`Measured.overlap`) before it overwrites it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..errors import StudyError
from .groups import Groups

Vector = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Memory:
    """The buffers that a solver works in; all change in place."""

    d: Vector
    held: Vector  # a second vector, or empty; see the diagram
    squares: dict[str, torch.Tensor]  # <d_g, d_g> of each block by its name, float64 (groups,); none where d = 0

    def clear(self) -> None:
        """Back to d = 0. ``held`` may keep what it has: the next pass overwrites it."""
        self.squares.clear()
        for value in self.d.values():
            value.zero_()


@dataclass(frozen=True)
class Block:
    """One block at one point: F and, per group, float64 (groups,), ``<d, d>``, ``<d, F>`` and ``<F, F>``."""

    f: Vector
    dd: torch.Tensor
    df: torch.Tensor
    ff: torch.Tensor


class Step(NamedTuple):
    """A proximal step from a block, per group, float64 (groups,)."""

    keep: torch.Tensor  # factor that the threshold puts on d - gamma F
    norm: torch.Tensor  # ||d - gamma F||
    squared: torch.Tensor  # <s, s> of the step s
    slope: torch.Tensor  # <F, s>


@dataclass
class Measured:
    """What one pass at d finds: the loss (nats) and inner products summed over the blocks."""

    loss: float = math.nan
    size: float = 0.0  # ||d||^2
    steep: float = 0.0  # <F, F>
    difference: float = 0.0  # ||d - GST_{rho eta}(d - rho F)||^2, zero at the minimiser
    overlap: float = 0.0  # <held, F> with what ``held`` was before the pass

    def residual(self) -> float:
        """The relative prox residual of :class:`mpstudy.gradients.envelope.ProxResult`."""
        if self.size == 0:
            return 0.0 if self.difference == 0 else math.inf
        return (self.difference / self.size) ** 0.5


@dataclass
class Moved:
    """Inner products of the step s that was taken, summed over the blocks."""

    squared: float = 0.0  # <s, s>
    slope: float = 0.0  # <F, s>, F at the point it starts from


@dataclass(frozen=True)
class Problem:
    """The inner problem; see :func:`mpstudy.gradients.envelope.prox_point` for the fields and their units."""

    evaluate: Callable
    rho: float
    eta: float
    groups: Groups

    def step(self, block: Block, gamma: float) -> Step:
        """``GST_{gamma eta}(d - gamma F) - d`` by its inner products; pure."""
        dd, df, ff = block.dd, block.df, block.ff
        norm = (dd - 2 * gamma * df + gamma**2 * ff).clamp_min(0).sqrt()
        keep = (1 - gamma * self.eta / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_min(0)
        cut = 1 - keep
        squared = cut**2 * dd + 2 * cut * keep * gamma * df + (keep * gamma) ** 2 * ff
        return Step(keep, norm, squared.clamp_min(0), -cut * df - keep * gamma * ff)

    def smooth(self, at: Measured) -> float:
        """``L(w + d) + ||d||^2 / (2 rho)``, nats."""
        return at.loss + at.size / (2 * self.rho)

    def rises(self, at: Measured, start: float) -> bool:
        """Whether the step led above ``start`` = L(w), as only too long a one does."""
        return at.size > 0 and self.smooth(at) > start


def measure(problem: Problem, memory: Memory, number: int, receive: Callable[[Block], None]) -> Measured:
    """The loss and the sums at d; ``receive`` gets each block once. ``held`` is overwritten by F.

    Raises :class:`StudyError` naming the pass, ``number``, where the loss or a gradient is not finite.
    """
    found = Measured()
    found.loss = problem.evaluate(memory.d, lambda gradient: receive(_gather(problem, memory, number, gradient, found)))
    if not math.isfinite(found.loss):
        raise StudyError(f"the loss is {found.loss} at step {number} of the prox solver")
    return found


def _gather(problem: Problem, memory: Memory, number: int, gradient: Vector, found: Measured) -> Block:
    """Turn a block of the gradient into F, where it lies, and add its inner products to ``found``."""
    totals = torch.zeros(2, problem.groups.count(gradient), dtype=torch.float64)
    for piece in problem.groups.pieces(gradient):
        f, d = piece.of(gradient), piece.of(memory.d)
        totals[:, piece.groups] += inner(f.add_(d, alpha=1 / problem.rho), d, f)
        if memory.held:
            held = piece.of(memory.held)
            found.overlap += float(held.flatten().dot(f.flatten()))
            held.copy_(f)
    if not torch.isfinite(totals).all():
        name = next((n for n, f in gradient.items() if not torch.isfinite(f).all()), next(iter(gradient)))
        raise StudyError(f"the gradient of {name} is not finite at step {number} of the prox solver")
    df, ff = totals
    own = {name: memory.held[name] for name in gradient} if memory.held else gradient
    block = Block(own, memory.squares.get(min(own), torch.zeros_like(ff)), df, ff)
    found.size += float(block.dd.sum())
    found.steep += float(ff.sum())
    found.difference += float(problem.step(block, problem.rho).squared.sum())
    return block


def move(problem: Problem, memory: Memory, block: Block, gamma: float, moved: Moved) -> None:
    """``d <- GST_{gamma eta}(d - gamma F)`` in one block, in place. With eta, F is overwritten by the step."""
    step = problem.step(block, gamma)
    memory.squares[min(block.f)] = (step.keep * step.norm) ** 2
    moved.squared += float(step.squared.sum())
    moved.slope += float(step.slope.sum())
    if not problem.eta:
        for name, f in block.f.items():
            memory.d[name].add_(f, alpha=-gamma)
        return
    scale, cut = -gamma * step.keep, step.keep - 1
    for piece in problem.groups.pieces(block.f):
        f, d = piece.of(block.f), piece.of(memory.d)
        d.add_(f.mul_(piece.spread(scale, f)).addcmul_(d, piece.spread(cut, d)))


def inner(f: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """``<f_g, x_g>`` of every group g of a piece (., groups, .) for each x of ``others``, float64 (others, groups)."""
    if f.shape[1] == 1:  # the faster way where there is one group
        return torch.stack([f.flatten().dot(x.flatten()) for x in others]).double()[:, None].cpu()
    return torch.stack([(f * x).sum(dim=(0, 2)) for x in others]).double().cpu()
