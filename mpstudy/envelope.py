"""The Moreau envelope of a loss: ``L^rho(w) = min_d L(w + d) + ||d||^2 / (2 rho) + eta * sum_g ||d_g||_2``.

With minimiser d* its gradient is ``-d* / rho`` (arXiv 2406.07017). The solver knows nothing about models: vectors are
dictionaries of tensors, the loss is a function, the groups are a shrinkage operator. It is proximal gradient,
``d <- GST_{gamma eta}((1 - gamma/rho) d - gamma grad L(w + d))``, with the spectral step size of Barzilai and Borwein
(1988): the inverse curvature along the last step, so that no Lipschitz constant has to be guessed.
"""

import math
from dataclasses import dataclass

import torch

from .errors import StudyError

Vector = dict[str, torch.Tensor]
MAX_REJECTED = 12


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
        return {name: getattr(self, name) for name in names}


def prox_point(loss_and_gradient, like: Vector, *, rho, max_steps, tol, step_size=None, shrink=None) -> ProxResult:
    """Minimise the envelope's inner problem from d = 0.

    Parameters
    ----------
    loss_and_gradient: ``d -> (loss, gradient)`` of L(w + d).
    like: tensors of the shape of d.
    rho: radius of the envelope, > 0 (units: weight squared per nat).
    max_steps: at most so many proximal steps. tol: stop at this relative prox residual.
    step_size: first step; the default rho / 10 moves a tenth of the way that the plain gradient would.
    shrink: ``(d, t) -> GST_{t * eta}(d)`` for the group-sparse envelope; ``None`` for eta = 0.

    Raises
    ------
    StudyError: a non-finite loss, or no step size that lowers the objective below L(w).
    """
    shrink = shrink or (lambda d, t: d)
    d = {name: torch.zeros_like(value, dtype=_at_least_float32(value)) for name, value in like.items()}
    loss, gradient = loss_and_gradient(d)
    _check_finite(loss, 0)
    loss_start, gamma = loss, step_size or rho / 10
    residuals: list[float] = []
    evaluations, rejected = 1, 0
    while len(residuals) < max_steps:
        trial = shrink({name: torch.lerp(d[name], -rho * gradient[name], gamma / rho) for name in d}, gamma)
        trial_loss, trial_gradient = loss_and_gradient(trial)
        _check_finite(trial_loss, evaluations)
        evaluations += 1
        if trial_loss + dot(trial, trial) / (2 * rho) > loss_start and dot(trial, trial) > 0:
            rejected, gamma = rejected + 1, gamma / 4
            if rejected > MAX_REJECTED:
                raise StudyError(
                    f"the prox solver diverges: no step size down to {gamma:.1e} lowers the loss (rho = {rho})"
                )
            continue
        gamma = _spectral_step(d, gradient, trial, trial_gradient, rho, gamma)
        d, loss, gradient = trial, trial_loss, trial_gradient
        residuals.append(prox_residual(d, gradient, rho, shrink))
        if residuals[-1] <= tol:
            break
    last = residuals[-1] if residuals else float("inf")
    return ProxResult(d, last, last <= tol, evaluations, loss_start, loss, tuple(residuals))


def prox_residual(d: Vector, gradient: Vector, rho: float, shrink) -> float:
    """``||d + rho (grad + eta s)|| / ||d||`` with the subgradient s that GST chooses; 0 when d* = 0 is exact.

    ``d = GST_{rho eta}(-rho grad)`` holds exactly at the minimiser, so the difference of its two sides is the residual.
    """
    fixed = shrink({name: -rho * gradient[name] for name in d}, rho)
    difference = sum(float((d[name] - fixed[name]).double().pow(2).sum()) for name in d) ** 0.5
    size = dot(d, d) ** 0.5
    return difference / size if size > 0 else (0.0 if difference == 0 else float("inf"))


def dot(a: Vector, b: Vector) -> float:
    """Inner product of two vectors held as dictionaries of tensors."""
    return sum(float((a[name] * b[name]).sum(dtype=torch.float64)) for name in a)


def _spectral_step(d, gradient, trial, trial_gradient, rho, gamma):
    """``<s, y> / <y, y>`` for the smooth part L + ||d||^2 / (2 rho); the old step where the curvature is negative."""
    sy = yy = 0.0
    for name in d:
        s = trial[name] - d[name]
        y = trial_gradient[name] - gradient[name] + s / rho
        sy += float((s * y).sum(dtype=torch.float64))
        yy += float((y * y).sum(dtype=torch.float64))
    return sy / yy if sy > 0 else gamma


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise StudyError(f"the loss is {loss} at step {step} of the prox solver")


def _at_least_float32(value: torch.Tensor) -> torch.dtype:
    """Offsets of half-precision weights are held in float32: most of them are below half a unit in the last place."""
    return torch.promote_types(value.dtype, torch.float32)
