"""MoreauPruner: first-order scores with the gradient of the loss's Moreau envelope (arXiv 2406.07017).

The envelope's gradient is ``-d*/rho`` with d* the prox point, so a unit scores ``sum |w * d*/rho|`` over its coupled
slices.
Nearby weights have nearby envelope gradients (Lipschitz constant max(1/rho, phi/(1 - rho phi)) for a phi-weakly convex
loss), which is the robustness claim. It holds at d*, so each score carries the prox residual: a score whose
``converged`` is false is not a Moreau score.
"""

import torch

from ..gradients.envelope import prox_point
from ..gradients.groups import GROUPS
from ..gradients.shifted import Noise, ShiftedLoss
from ..registry import ORANGE, VERMILLION, Look
from ..structure.scores import Scores, first_order_scores
from .registry import PRUNERS


@PRUNERS.register("moreau", look=Look("moreau", VERMILLION, "s"), near_taylor=True)
def moreau(
    model,
    batches,
    units,
    *,
    seed=0,
    rho=0.05,
    sigma=0.0,
    noise="relative",
    eta=0.0,
    groups="units",
    max_steps=30,
    tol=0.1,
    step_size=None,
    solver="spectral",
    state_device=None,
) -> Scores:
    """Scores from the Moreau envelope of radius ``rho`` (weight squared per nat).

    ``sigma`` > 0 first smooths the loss: the expectation over u is estimated by one antithetic pair, w + d + u and
    w + d - u, whose u is drawn from ``seed``, so that the inner problem stays deterministic and ``tol`` can be reached.
    ``eta`` > 0 (nats per weight) adds ``eta * sum_g ||d_g||_2`` over ``groups``, the structural ``units`` or the
    ``rows`` of every tensor as in the released code: a unit whose joint gradient norm at the prox point is below eta
    scores exactly zero, and ``zero_share`` in the metadata is the share of such units.
    ``max_steps``, ``tol``, ``step_size``, ``solver``: see :func:`..gradients.envelope.prox_point`. ``state_device``:
    where its vectors live, such as ``"cpu"`` beside a model on a GPU.
    """
    gradients, meta = envelope_gradients(**locals())
    scores = first_order_scores(units, units.parameters(model), gradients, {"pruner": "moreau"} | meta)
    if eta:
        values = torch.cat(list(scores.values.values()))
        scores.meta["zero_share"] = float((values == 0).float().mean())
    return scores


@PRUNERS.register("moreau-gs", look=Look("moreau-gs", ORANGE, "P"), near_taylor=True)
def moreau_gs(
    model,
    batches,
    units,
    *,
    seed=0,
    rho=0.05,
    sigma=0.0,
    noise="relative",
    eta=0.002,
    groups="units",
    max_steps=30,
    tol=0.1,
    step_size=None,
    solver="spectral",
    state_device=None,
) -> Scores:
    """Scores from the group-sparse envelope: :func:`moreau` with ``eta`` > 0 by default."""
    scores = moreau(**locals())
    scores.meta["pruner"] = "moreau-gs"
    return scores


def envelope_gradients(
    model, batches, units, *, seed, rho, sigma, noise, eta, groups, max_steps, tol, step_size, solver, state_device
) -> tuple[dict[str, torch.Tensor], dict]:
    """The envelope's gradient by parameter name, and how it was computed; the arguments are those of :func:`moreau`."""
    draws = [Noise(sigma, noise, (seed, 0), sign) for sign in (1, -1)] if sigma else [None]
    loss = ShiftedLoss(model, batches, units, draws, state_device)
    settings = {"rho": rho, "eta": eta, "max_steps": max_steps, "tol": tol, "step_size": step_size, "solver": solver}
    result = prox_point(loss, loss.zeros(), groups=GROUPS[groups](units), **settings)
    for value in result.d.values():
        value.div_(-rho)
    settings |= {"seed": seed, "sigma": sigma, "noise": noise, "groups": groups, "state_device": state_device}
    meta = settings | result.report()
    return result.d, meta | {"gradients": meta["gradients"] * len(loss.parts)}
