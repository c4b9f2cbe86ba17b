"""Gradients and the scores made of them: Taylor, SmoothGrad, Moreau, group-sparse Moreau, the release."""

from types import SimpleNamespace

import pytest
import torch
from helpers.models import bits, distance, equal, same_bits, score, tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.gradients.groups import RowGroups, UnitGroups
from mpstudy.gradients.loss import causal_loss, mean_gradients, only_trainable
from mpstudy.gradients.proximal import inner
from mpstudy.structure.units import prunable_units, reduce_to_units
from mpstudy.structure.weights import restored


@pytest.fixture
def model():
    return tiny_llama(kv_heads=2, bias=True)


@pytest.fixture
def units(model):
    return prunable_units(model, "0-1")


# ---- gradients


def test_two_batches_equal_one_with_both(model, units):
    both = tiny_tokens(samples=4)
    apart, together = (score("taylor", model, units, batches=b) for b in ([both[:2], both[2:]], [both]))
    assert distance(apart, together) < 1e-5 < distance(score("taylor", model, units, batches=[both[:2]]), together)
    assert apart.meta["loss"] == pytest.approx(together.meta["loss"], rel=1e-6)
    assert apart.meta["gradients"] == 2 and together.meta["gradients"] == 1


def test_taylor_is_the_sum_of_weight_times_gradient(model, units):
    tokens = tiny_tokens()
    model(tokens, labels=tokens).loss.backward()
    scores = score("taylor", model, units)
    for unit_set in units:
        parameters = {part.name: model.get_parameter(part.name) for part in unit_set.slices}
        products = {name: (weight * weight.grad).abs() for name, weight in parameters.items()}
        expected = reduce_to_units(unit_set, products).detach()
        torch.testing.assert_close(scores.values[unit_set.key], expected, rtol=1e-4, atol=0)


def test_loss_is_the_mean_over_shifted_positions_in_float32(model):
    tokens = tiny_tokens()
    with torch.no_grad():
        expected = model(tokens, labels=tokens).loss
        torch.testing.assert_close(causal_loss(model, tokens), expected)
        assert causal_loss(model.to(torch.bfloat16), tokens).dtype == torch.float32


def test_loss_and_its_gradient_are_those_of_torch():
    tokens = tiny_tokens(samples=3, length=7)
    logits = torch.randn(3, 7, 96, generator=torch.Generator().manual_seed(1), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    wanted = torch.autograd.grad(3 * expected, logits)[0]
    found = causal_loss(lambda **_: SimpleNamespace(logits=1 * logits), tokens)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * found, logits)[0], wanted)


class RootModel(torch.nn.Module):
    """Logits that grow with the root of a weight: finite loss, infinite gradient at zero."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 96) * self.scale.sqrt())


def test_gradient_that_is_not_finite_is_named_with_its_step():
    model = RootModel()
    with pytest.raises(StudyError, match="the gradient of scale is not finite at step 3, batch 0"):
        mean_gradients(model, [tiny_tokens()], dict(model.named_parameters()), step=3)


def test_only_the_named_parameters_are_trainable_inside(model, units):
    with only_trainable(model, units.names):
        assert {n for n, p in model.named_parameters() if p.requires_grad} == set(units.names)
    assert all(parameter.requires_grad for parameter in model.parameters())


# ---- smoothgrad, moreau, moreau-gs, moreau-release


def test_smoothgrad_without_noise_is_taylor(model, units):
    assert equal(score("smoothgrad", model, units, sigma=0.0, steps=1), score("taylor", model, units))
    assert distance(score("smoothgrad", model, units, sigma=0.0, steps=5), score("taylor", model, units)) < 1e-6
    assert distance(score("smoothgrad", model, units, sigma=0.3), score("taylor", model, units)) > 0.01


def test_moreau_tends_to_taylor_as_rho_tends_to_zero(model, units):
    taylor = score("taylor", model, units)
    settings = {"sigma": 0.0, "tol": 1e-3, "max_steps": 200}
    distances = [distance(score("moreau", model, units, rho=rho, **settings), taylor) for rho in (1e-2, 1e-3, 1e-4)]
    assert distances[0] > 5 * distances[1] > 25 * distances[2] and distances[2] < 1e-3


def test_moreau_scores_are_those_of_a_fixed_point(model, units):
    """``d* = -rho grad L(w + d*)``, so a unit scores ``sum |w * grad L(w + d*)|``."""
    tokens, rho = [tiny_tokens()], 0.01
    scores = score("moreau", model, units, rho=rho, sigma=0.0, tol=1e-3, max_steps=200)
    assert scores.meta["converged"] and scores.meta["residual"] <= 1e-3
    weights = units.parameters(model)
    with only_trainable(model, units.names), restored(weights) as original:
        for _ in range(60):  # plain fixed-point iteration with damping, independent of the solver
            gradients = mean_gradients(model, tokens, weights)[1]
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.lerp_(original[name] - rho * gradients[name], 0.3)
    for unit_set in units:
        products = {p.name: (original[p.name] * gradients[p.name]).abs() for p in unit_set.slices}
        expected = reduce_to_units(unit_set, products)
        torch.testing.assert_close(scores.values[unit_set.key], expected, rtol=1e-2, atol=1e-2 * expected.mean().item())


@pytest.mark.parametrize("name", ["moreau", "moreau-gs"])
def test_what_the_solver_reached_is_reported(name, model, units):
    settings = {"sigma": 0.0, "rho": 0.05, "tol": 0.1}
    good = score(name, model, units, max_steps=100, **settings).meta
    assert good["converged"] is True and good["residual"] <= 0.1 and good["loss_prox"] < good["loss_start"]
    short = score(name, model, units, max_steps=2, **settings).meta
    assert short["converged"] is False and short["residual"] > 0.1 and short["gradients"] == 3


def test_the_release_tells_where_each_step_starts(model, units):
    tokens, weights = tiny_tokens(), dict(model.named_parameters())
    with only_trainable(model, weights):
        loss, gradients = mean_gradients(model, [tokens], weights)
    meta = score("moreau-release", model, units, steps=2, std=0.0, soft=0.0, lr=1e-3).meta
    size = sum(float(gradient.square().sum()) for gradient in gradients.values()) ** 0.5
    assert meta["losses"][0] == pytest.approx(loss) and meta["losses"][1] < loss
    assert meta["norms"] == [0, pytest.approx(1e-3 * size)]


def test_the_releases_shrinkage_has_a_period_of_two(model, units):
    """Rows far below ``soft`` turn round to its size, and the next step removes them again."""
    settings = {"steps": 5, "std": 0.0, "soft": 1e-3, "lr": 1e-4}
    norms = score("moreau-release", model, units, **settings).meta["norms"]
    limit = 1e-3 * sum(weight.numel() for weight in model.parameters()) ** 0.5
    assert all(0.8 * limit < large < limit and small < 0.2 * limit for small, large in (norms[0:2], norms[2:4]))
    corrected = score("moreau-release", model, units, corrected_shrink=True, **settings).meta["norms"]
    assert corrected == sorted(corrected)


def test_gradients_are_counted_over_batches_and_noise(model, units):
    tokens = tiny_tokens(samples=4)
    settings = {"max_steps": 1, "batches": [tokens[:2], tokens[2:]]}
    assert score("moreau", model, units, sigma=0.0, **settings).meta["gradients"] == 4  # 2 evaluations of 2 batches
    assert score("moreau", model, units, sigma=0.05, **settings).meta["gradients"] == 8  # each at +u and -u
    assert score("smoothgrad", model, units, steps=3, batches=settings["batches"]).meta["gradients"] == 6


@pytest.mark.parametrize("noise", ["relative", "isotropic"])
def test_smoothing_vanishes_with_sigma(noise, model, units):
    settings = {"noise": noise, "rho": 0.001, "max_steps": 20}
    plain = score("moreau", model, units, sigma=0.0, **settings)
    near, far = (distance(score("moreau", model, units, sigma=s, **settings), plain) for s in (1e-4, 3e-2))
    assert near < 1e-3 < far


def test_eta_alone_tells_the_two_apart(model, units):
    assert equal(score("moreau", model, units, eta=0.03), score("moreau-gs", model, units, eta=0.03))
    assert not equal(score("moreau", model, units), score("moreau-gs", model, units, eta=0.03))


def test_zero_eta_is_moreau(model, units):
    assert equal(score("moreau-gs", model, units, eta=0.0), score("moreau", model, units))


def test_zero_share_grows_with_eta(model, units):
    settings = {"sigma": 0.0, "rho": 0.01, "max_steps": 100}
    shares = []
    for eta in (0.03, 0.1, 100.0):
        scores = score("moreau-gs", model, units, eta=eta, **settings)
        values = torch.cat(list(scores.values.values()))
        assert scores.meta["zero_share"] == pytest.approx(float((values == 0).float().mean()))
        shares.append(scores.meta["zero_share"])
    assert shares == sorted(shares) and 0 < shares[1] < 1 and shares[2] == 1
    assert "zero_share" not in score("moreau-gs", model, units, eta=0.0).meta


def test_units_shrink_towards_zero_by_their_joint_norm(units):
    for unit_set in units:
        d = random_block(unit_set)
        shrunk = shrink(UnitGroups(units), d, 6.0)
        before, after = (norms(unit_set, block) for block in (d, shrunk))
        torch.testing.assert_close(after, (before - 6).clamp_min(0), rtol=1e-4, atol=1e-4)
        down = unit_set.slices[-1].name  # the columns of the last slice keep their direction
        cosine = torch.nn.functional.cosine_similarity(d[down], shrunk[down], dim=0)
        assert (cosine[shrunk[down].any(dim=0)] > 0.9999).all()


def test_rows_shrink_each_by_its_own_norm(units):
    for unit_set in units:
        d = random_block(unit_set)
        shrunk = shrink(RowGroups(units), d, 3.0)
        for name, value in d.items():
            expected = (value.norm(dim=-1) - 3).clamp_min(0)
            torch.testing.assert_close(shrunk[name].norm(dim=-1), expected, rtol=1e-4, atol=1e-4)


def test_the_groups_make_a_difference(model, units):
    settings = {"rho": 0.01, "eta": 0.05, "max_steps": 100}
    by_units, by_rows = (score("moreau-gs", model, units, groups=groups, **settings) for groups in ("units", "rows"))
    assert by_units.meta["groups"] == "units" and by_rows.meta["groups"] == "rows"
    assert not equal(by_units, by_rows)
    free = [score("moreau-gs", model, units, groups=groups, eta=0.0) for groups in ("units", "rows")]
    assert equal(*free) and equal(free[0], score("moreau", model, units))


def shrink(groups, d, threshold):
    squares = torch.zeros(groups.count(d), dtype=torch.float64)
    for piece in groups.pieces(d):
        squares[piece.groups] += inner(piece.of(d), piece.of(d))[0]
    factors, shrunk = (1 - threshold / squares.sqrt()).clamp_min(0), {n: value.clone() for n, value in d.items()}
    for piece in groups.pieces(d):
        piece.of(shrunk).mul_(piece.spread(factors, piece.of(d)))
    return shrunk


def random_block(unit_set):
    generator = torch.Generator().manual_seed(unit_set.layer)
    model = tiny_llama(kv_heads=2, bias=True)
    return {p.name: torch.randn(model.get_parameter(p.name).shape, generator=generator) for p in unit_set.slices}


def norms(unit_set, block):
    return reduce_to_units(unit_set, {name: value.square() for name, value in block.items()}).sqrt()


@pytest.mark.parametrize("name", ["moreau", "moreau-gs"])
def test_both_solvers_find_the_same_scores(name, model, units):
    settings = {"rho": 0.02, "sigma": 0.0, "tol": 1e-3, "max_steps": 300}
    spectral, plain = (score(name, model, units, solver=solver, **settings) for solver in ("spectral", "plain"))
    assert spectral.meta["converged"] and plain.meta["converged"]
    assert distance(spectral, plain) < 1e-2


@pytest.mark.parametrize("name", ["moreau", "moreau-gs", "taylor"])
def test_every_envelope_score_says_what_it_is(name, model, units):
    names = {"residual", "converged", "steps", "rho", "sigma", "eta"} if name != "taylor" else {"loss"}
    assert names <= score(name, model, units).meta.keys()


def test_proximal_weight_of_the_release_is_dead(model, units):
    released = [score("moreau-release", model, units, steps=3, lam=lam) for lam in (0.2, 1e6)]
    assert equal(*released)
    proximal = [score("moreau-release", model, units, steps=3, lam=lam, proximal=True) for lam in (1e-3, 1e6)]
    assert not equal(*proximal)


def test_release_without_noise_and_threshold_ranks_as_taylor(model, units):
    release = score("moreau-release", model, units, steps=1, std=0.0, soft=0.0, lr=0.5)
    taylor = score("taylor", model, units)
    for key, value in taylor.values.items():
        torch.testing.assert_close(release.values[key], 0.5 * value, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["taylor", "moreau-release"])
def test_tied_embeddings(name):
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    before = bits(model)
    scores = score(name, model, prunable_units(model, "0-1"))
    assert all(torch.isfinite(value).all() for value in scores.values.values()) and same_bits(model, before)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moreau_in_half_precision_agrees_with_float32(dtype, units):
    model = tiny_llama(kv_heads=2, bias=True)
    settings = {"batches": [tiny_tokens(samples=8)], "sigma": 0.0, "rho": 0.01, "tol": 0.05, "max_steps": 60}
    full = score("moreau", model, units, **settings)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    half = score("moreau", model, units, **settings)
    assert half.meta["converged"] and distance(half, full) < 0.1
    assert {value.dtype for value in half.values.values()} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", None])
def test_state_may_live_elsewhere(device, model, units):
    assert equal(score("moreau", model, units, state_device=device), score("moreau", model, units))


def test_an_unusable_device_is_one_clear_error(model, units):
    for device in ("gpu", "cuda:99", 7.5):
        with pytest.raises(StudyError, match="state_device of pruner 'moreau' must be a device of this machine"):
            score("moreau", model, units, state_device=device)
