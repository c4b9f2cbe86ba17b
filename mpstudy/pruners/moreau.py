"""MoreauPruner: first-order scores with the gradient of the loss's Moreau envelope (arXiv 2406.07017).

The envelope's gradient is ``-d*/rho`` with d* the prox point, so a unit scores ``sum |w * d*/rho|`` over its coupled
slices.
Nearby weights have nearby envelope gradients (Lipschitz constant max(1/rho, phi/(1 - rho phi)) for a phi-weakly convex
loss), which is the robustness claim. It holds at d*, so each score carries the prox residual: a score whose
``converged`` is false is not a Moreau score.
"""

import torch

from ..envelope import prox_point
from ..scores import Scores, first_order_scores
from ..shifted import Noise, ShiftedLoss
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
    solver="spectral",
    state_device=None,
) -> Scores:
    """Scores from the Moreau envelope of radius ``rho`` (weight squared per nat).

    ``sigma`` > 0 first smooths the loss: the expectation over u is estimated by one antithetic pair, w + d + u and
    w + d - u, whose u is drawn from ``seed``, so that the inner problem stays deterministic and ``tol`` can be reached.
    ``max_steps``, ``tol``, ``step_size``, ``solver``: see :func:`mpstudy.envelope.prox_point`. ``state_device``: where
    its vectors live, such as ``"cpu"`` beside a model on a GPU.
    """
    return _envelope_scores("moreau", model, batches, units, _settings(locals()))


def moreau_gs(
    model,
    batches,
    units,
    *,
    seed=0,
    rho=0.05,
    eta=0.002,
    groups="units",
    sigma=0.0,
    noise="relative",
    max_steps=30,
    tol=0.1,
    step_size=None,
    solver="spectral",
    state_device=None,
) -> Scores:
    """Scores from the group-sparse envelope: ``eta * sum_g ||d_g||_2`` is added.

    ``groups``: the structural units, or the ``rows`` of every tensor as in the released code. A unit whose joint
    gradient norm at the prox point is below ``eta`` (nat per weight) then scores exactly zero; ``zero_share`` in the
    metadata is the share of such units. The other settings are those of :func:`moreau`.
    """
    settings = _settings(locals())
    scores = _envelope_scores("moreau-gs", model, batches, units, settings, SHRINKS[groups](units, eta))
    values = torch.cat(list(scores.values.values()))
    scores.meta["zero_share"] = float((values == 0).float().mean())
    return scores


def shrink_units(units: Units, eta: float):
    """Group soft-thresholding over structural units: ``(block, t) -> max(0, 1 - t eta/||d_g||) d_g``."""
    sets = {frozenset(part.name for part in unit_set.slices): unit_set for unit_set in units}

    def shrink(block: dict, t: float) -> dict:
        unit_set = sets[frozenset(block)]
        norms = reduce_to_units(unit_set, {name: value.square() for name, value in block.items()}).sqrt()
        factor = _factor(norms, t * eta)
        for part in unit_set.slices:
            shape = [1] * block[part.name].dim()
            shape[part.dim] = -1
            block[part.name].mul_(factor.repeat_interleave(part.block).view(shape))
        return block

    return shrink


def shrink_rows(units: Units, eta: float):
    """The same with every row of every tensor as a group (a bias is one row)."""

    def shrink(block: dict, t: float) -> dict:
        for value in block.values():
            value.mul_(_factor(torch.linalg.vector_norm(value, dim=-1, keepdim=True), t * eta))
        return block

    return shrink


SHRINKS = {"units": shrink_units, "rows": shrink_rows}


def _factor(norms: torch.Tensor, threshold: float) -> torch.Tensor:
    return (1 - threshold / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_min(0)


def _settings(arguments: dict) -> dict:
    return {name: value for name, value in arguments.items() if name not in ("model", "batches", "units")}


def _envelope_scores(name, model, batches, units, settings, shrink=None) -> Scores:
    draws = [None]
    if settings["sigma"] > 0:
        pair = settings["sigma"], settings["noise"], (settings["seed"], 0)
        draws = [Noise(*pair, sign=1), Noise(*pair, sign=-1)]
    loss = ShiftedLoss(model, batches, units, draws, settings["state_device"])
    solver = {key: settings[key] for key in ("rho", "max_steps", "tol", "step_size", "solver")}
    result = prox_point(loss, loss.zeros(), shrink=shrink, **solver)
    for value in result.d.values():
        value.div_(-settings["rho"])  # the envelope's gradient
    scores = first_order_scores(
        units, loss.weights, result.d, {"pruner": name, "eta": 0.0} | settings | result.report()
    )
    scores.meta["gradients"] *= len(loss.parts)
    return scores
