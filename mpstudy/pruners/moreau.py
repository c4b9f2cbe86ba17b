"""MoreauPruner: first-order scores with the gradient of the loss's Moreau envelope (arXiv 2406.07017).

The envelope's gradient is ``-d*/rho`` with d* the prox point, so a unit scores ``sum |w * d*/rho|`` over its coupled
slices.
Nearby weights have nearby envelope gradients (Lipschitz constant max(1/rho, phi/(1 - rho phi)) for a phi-weakly convex
loss), which is the robustness claim. It holds at d*, so each score carries the prox residual: a score whose
``converged`` is false is not a Moreau score.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ..gradients.envelope import prox_point
from ..gradients.groups import GROUPS
from ..gradients.shifted import Noise, ShiftedLoss
from ..registry import ORANGE, VERMILLION, Look
from ..structure.scores import Scores, first_order_scores
from ..structure.units import Units
from .registry import PRUNERS


@dataclass(frozen=True, kw_only=True)
class Prox:
    """The envelope and how its prox point is sought: the settings of the pruners ``moreau`` and ``moreau-gs``.

    ``sigma`` > 0 first smooths the loss: the expectation over u is estimated by one antithetic pair, w + d + u and
    w + d - u, whose u is drawn from the seed, so that the inner problem stays deterministic and ``tol`` can be reached.
    ``eta`` > 0 adds ``eta * sum_g ||d_g||_2`` over ``groups``, the structural ``units`` or the ``rows`` of every tensor
    as in the released code: a unit whose joint gradient norm at the prox point is below eta scores exactly zero.
    ``max_steps``, ``tol``, ``step_size``, ``solver``: see :func:`..gradients.envelope.prox_point`. ``state_device``:
    where its vectors live, such as ``"cpu"`` beside a model on a GPU.
    """

    rho: float = 0.05  # radius, weight squared per nat
    sigma: float = 0.0  # standard deviation of u, over |w| (relative) or of weights (isotropic)
    noise: str = "relative"
    eta: float = 0.0  # nats per weight
    groups: str = "units"
    max_steps: int = 30
    tol: float = 0.1
    step_size: float | None = None  # weight squared per nat
    solver: str = "spectral"
    state_device: str | None = None


MOREAU = Prox()
MOREAU_GS = Prox(eta=0.002)


@PRUNERS.register("moreau", look=Look("moreau", VERMILLION, "s"), near_taylor=True, settings=MOREAU)
def moreau(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, **settings: Any
) -> Scores:
    """Scores from the Moreau envelope; ``settings`` are fields of :class:`Prox`.

    The metadata holds them, what the solver reached (:meth:`.ProxResult.report`) and, with ``eta``, as
    ``zero_share`` the share of units that score exactly zero.
    """
    return _scores("moreau", model, batches, units, replace(MOREAU, **settings), seed)


@PRUNERS.register("moreau-gs", look=Look("moreau-gs", ORANGE, "P"), near_taylor=True, settings=MOREAU_GS)
def moreau_gs(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, *, seed: int = 0, **settings: Any
) -> Scores:
    """Scores from the group-sparse envelope: :func:`moreau` with ``eta`` > 0 by default."""
    return _scores("moreau-gs", model, batches, units, replace(MOREAU_GS, **settings), seed)


def _scores(
    pruner: str, model: nn.Module, batches: Sequence[torch.Tensor], units: Units, prox: Prox, seed: int
) -> Scores:
    gradients, meta = envelope_gradients(model, batches, units, prox, seed)
    scores = first_order_scores(units, units.parameters(model), gradients, {"pruner": pruner} | meta)
    if prox.eta:
        values = torch.cat(list(scores.values.values()))
        scores.meta["zero_share"] = float((values == 0).float().mean())
    return scores


def envelope_gradients(
    model: nn.Module, batches: Sequence[torch.Tensor], units: Units, prox: Prox, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict]:
    """The envelope's gradient ``-d*/rho`` by parameter name (nats per weight), and how it was computed.

    ``batches``: equally large int64 tensors (samples, tokens). ``seed``: of the noise u. Raises :class:`StudyError`
    like :func:`..gradients.envelope.prox_point`.
    """
    draws = [Noise(prox.sigma, prox.noise, (seed, 0), sign) for sign in (1, -1)] if prox.sigma else [None]
    loss = ShiftedLoss(model, batches, units, draws, prox.state_device)
    result = prox_point(
        loss,
        loss.zeros(),
        rho=prox.rho,
        max_steps=prox.max_steps,
        tol=prox.tol,
        step_size=prox.step_size,
        eta=prox.eta,
        groups=GROUPS[prox.groups](units),
        solver=prox.solver,
    )
    for value in result.d.values():
        value.div_(-prox.rho)
    meta = {"seed": seed} | asdict(prox) | result.report()
    return result.d, meta | {"gradients": result.gradients * len(loss.parts)}
