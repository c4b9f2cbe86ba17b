"""MoreauPruner: first-order scores with the gradient of the loss's Moreau envelope (arXiv 2406.07017).

The envelope's gradient is ``-d*/rho`` with d* the prox point, so a unit scores ``sum |w * d*/rho|`` over its coupled
slices.
Nearby weights have nearby envelope gradients (Lipschitz constant max(1/rho, phi/(1 - rho phi)) for a phi-weakly convex
loss), which is the robustness claim. It holds at d*, so each score carries the prox residual: a score whose
``converged`` is false is not a Moreau score.
"""

import itertools

import torch

from ..envelope import prox_point
from ..gradients import mean_gradients, only_trainable
from ..perturb import draw_noise, restored
from ..scores import Scores, first_order_scores
from ..units import Units, reduce_to_units


def moreau(
    model,
    batches,
    units,
    *,
    seed=0,
    rho=0.05,
    sigma=0.0,
    noise="relative",
    max_steps=30,
    tol=0.1,
    step_size=None,
) -> Scores:
    """Scores from the Moreau envelope of radius ``rho`` (weight squared per nat).

    ``sigma`` > 0 first smooths the loss: the expectation over u is estimated by one antithetic pair, w + d + u and
    w + d - u, whose u is drawn once from ``seed``, so that the inner problem stays deterministic and ``tol`` can be
    reached.
    ``max_steps``, ``tol``, ``step_size``: see :func:`mpstudy.envelope.prox_point`.
    """
    settings = {"pruner": "moreau", "rho": rho, "sigma": sigma, "noise": noise, "tol": tol, "seed": seed}
    solver = {"rho": rho, "max_steps": max_steps, "tol": tol, "step_size": step_size}
    return _envelope_scores(model, batches, units, settings, solver)


def moreau_gs(
    model,
    batches,
    units,
    *,
    seed=0,
    rho=0.05,
    eta=0.002,
    sigma=0.0,
    noise="relative",
    max_steps=30,
    tol=0.1,
    step_size=None,
) -> Scores:
    """Scores from the group-sparse envelope: ``eta * sum_g ||d_g||_2`` is added, g running over the structural units.

    A unit whose joint gradient norm at the prox point is below ``eta`` (nat per weight) scores exactly zero;
    ``zero_share`` in the metadata is the share of such units. The other settings are those of :func:`moreau`.
    """
    settings = {
        "pruner": "moreau-gs",
        "rho": rho,
        "eta": eta,
        "sigma": sigma,
        "noise": noise,
        "tol": tol,
        "seed": seed,
    }
    solver = {"rho": rho, "max_steps": max_steps, "tol": tol, "step_size": step_size}
    return _envelope_scores(model, batches, units, settings, solver, lambda d, t: shrink_units(units, d, t * eta))


def shrink_units(units: Units, d: dict, threshold: float) -> dict:
    """Group soft-thresholding over structural units: ``max(0, 1 - t/||d_g||) d_g``, in new tensors."""
    shrunk = dict(d)
    for unit_set in units:
        norms = reduce_to_units(unit_set, {part.name: d[part.name].square() for part in unit_set.slices}).sqrt()
        factor = (1 - threshold / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_min(0)
        for part in unit_set.slices:
            shape = [1] * d[part.name].dim()
            shape[part.dim] = -1
            shrunk[part.name] = d[part.name] * factor.repeat_interleave(part.block).view(shape)
    return shrunk


def _envelope_scores(model, batches, units, settings, solver, shrink=None) -> Scores:
    weights = units.parameters(model)
    with only_trainable(model, units.names), restored(weights) as original:
        sign_draws = [{}]
        if settings["sigma"] > 0:
            u = draw_noise(original, settings["sigma"], settings["noise"], seed=(settings["seed"], 0))
            sign_draws = [u, {name: -value for name, value in u.items()}]

        evaluations = itertools.count()

        def loss_and_gradient(d):
            return _smoothed(model, batches, weights, original, d, sign_draws, next(evaluations))

        result = prox_point(loss_and_gradient, original, shrink=shrink, **solver)
        envelope_gradient = {name: value / -solver["rho"] for name, value in result.d.items()}
        scores = first_order_scores(units, original, envelope_gradient, settings | result.report())
    if shrink is not None:
        scores.meta["zero_share"] = _zero_share(scores)
    scores.meta["gradients"] *= len(batches) * len(sign_draws)
    return scores


def _smoothed(model, batches, weights, original, d, draws, step):
    """Loss and gradient at w + d, averaged over the noise draws; ``step`` counts the evaluations."""
    loss, total = 0.0, None
    for u in draws:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(original[name] + d[name] + u[name] if u else original[name] + d[name])
        value, gradients = mean_gradients(model, batches, weights, step)
        loss += value / len(draws)
        if total is None:
            total = {name: gradient.float() for name, gradient in gradients.items()}
        else:
            for name, gradient in gradients.items():
                total[name].add_(gradient)
    for gradient in total.values():
        gradient.div_(len(draws))
    return loss, total


def _zero_share(scores: Scores) -> float:
    values = torch.cat(list(scores.values.values()))
    return float((values == 0).float().mean())
