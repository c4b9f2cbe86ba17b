"""SmoothGrad: first-order scores with the mean gradient over noisy copies of the weights, and no prox.

The ablation between Taylor (no noise) and Moreau (prox): ``grad L_sigma(w) = E_u grad L(w + u)`` by Monte Carlo.
"""

from ..gradients import mean_gradients, only_trainable
from ..perturb import draw_noise, shifted
from ..scores import Scores, first_order_scores


def smoothgrad(model, batches, units, *, seed=0, sigma=0.05, noise="relative", steps=10) -> Scores:
    """Mean gradient over ``steps`` draws of ``u``; relative noise has standard deviation ``sigma * |w|`` per weight."""
    weights = units.parameters(model)
    total, loss = None, 0.0
    with only_trainable(model, units.names):
        for step in range(steps):
            with shifted(weights, draw_noise(weights, sigma, noise, seed=(seed, step))):
                value, gradients = mean_gradients(model, batches, weights, step)
            loss += value / steps
            if total is None:
                total = gradients
            else:
                for name, gradient in gradients.items():
                    total[name].add_(gradient)
    for gradient in total.values():
        gradient.div_(steps)
    meta = {
        "pruner": "smoothgrad",
        "sigma": sigma,
        "noise": noise,
        "steps": steps,
        "seed": seed,
        "loss": loss,
    }
    return first_order_scores(units, weights, total, meta | {"gradients": steps * len(batches)})
