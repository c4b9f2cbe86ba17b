"""Unstructured pruning against brute force, dense algebra and exact least squares; then a whole model."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, same_bits, tiny_llama, tiny_tokens

from mpstudy import pruners, sparse
from mpstudy.errors import StudyError
from mpstudy.sparse import admm, refit, sequential, sparsegpt
from mpstudy.sparse.importance import ELEMENTWISE, element_scores
from mpstudy.sparse.masks import Target, kept
from mpstudy.sparse.refit import reconstruction_error
from mpstudy.sparse.registry import ElementScore, Update
from mpstudy.sparse.sequential import prune_layers
from mpstudy.sparse.wanda import wanda
from mpstudy.store import tensorfile
from mpstudy.structure.families import FAMILIES
from mpstudy.structure.units import prunable_units
from mpstudy.study import Study

TARGETS = [Target(0.5), Target(0.6), Target(0.8), Target.parse("2:4"), Target.parse("4:8")]


def problem(rows=12, columns=16, samples=200, seed=0):
    """A weight and the Gram matrix of inputs that are correlated and unequally large."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x = draw(samples, columns) @ (torch.eye(columns) + 0.4 * draw(columns, columns) / columns**0.5)
    x = x * torch.linspace(0.5, 3, columns)
    return draw(rows, columns), x.t() @ x


# --- Masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected", [(0.6, Target(0.6)), ("0.6", Target(0.6)), (0, Target(0.0)), ("2:4", Target(0.5, 2, 4))]
)
def test_a_target_is_a_share_or_a_pattern(text, expected):
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", [1, -0.1, "4:4", "4:2", "0:4", "half", True, None, float("nan")])
def test_another_target_is_refused(text):
    with pytest.raises(StudyError, match="a sparsity is a number in"):
        Target.parse(text)


@pytest.mark.parametrize("per", ["row", "matrix"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99])
def test_the_smallest_go_and_their_number_is_exact(per, sparsity):
    importance = problem()[0].abs()
    mask = kept(importance, Target(sparsity), per)
    parts = zip(importance, mask) if per == "row" else [(importance.flatten(), mask.flatten())]
    for values, stays in parts:
        assert int((~stays).sum()) == int(len(values) * sparsity)
        assert sparsity == 0 or not (~stays).any() or values[~stays].max() <= values[stays].min()


@pytest.mark.parametrize("n, m", [(2, 4), (4, 8), (1, 4)])
def test_a_pattern_keeps_the_largest_n_of_m(n, m):
    importance = problem()[0].abs()
    groups, stays = (value.unflatten(1, (-1, m)) for value in (importance, kept(importance, Target(1 - n / m, n, m))))
    assert (stays.sum(dim=-1) == n).all()
    assert (torch.where(stays, groups, torch.inf).amin(-1) >= torch.where(stays, 0, groups).amax(-1)).all()


# --- Methods -----------------------------------------------------------------------------------------------------


def zeros_by_hand(weight, target, per_row):
    if target.of:
        return len(weight) * weight.shape[1] * (target.of - target.keep) // target.of
    return len(weight) * int(weight.shape[1] * target.sparsity) if per_row else int(weight.numel() * target.sparsity)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("name", sorted(sparse.METHODS))
def test_masks_meet_the_sparsity_exactly_and_nothing_else_changes(name, target):
    weight, gram = problem()
    before = weight.clone(), gram.clone()
    pruned = sparse.METHODS[name].function(weight, gram, target, weight.abs() if name == "masked" else None)
    assert torch.equal(weight, before[0]) and torch.equal(gram, before[1])
    assert int((pruned == 0).sum()) == zeros_by_hand(weight, target, name not in ("magnitude", "sparsegpt"))
    if target.of:
        assert ((pruned != 0).unflatten(1, (-1, target.of)).sum(-1) == target.keep).all()


@pytest.mark.parametrize("name", sorted(sparse.METHODS))
def test_what_a_method_says_it_needs_is_so(name):
    method, (weight, gram) = sparse.METHODS[name], problem()
    importance = weight.abs() if method.takes_scores else None
    other = gram * torch.linspace(3, 0.5, 16) * torch.linspace(3, 0.5, 16)[:, None]  # inputs of other sizes
    same = torch.equal(*(method.function(weight, each, Target(0.5), importance) for each in (gram, other)))
    assert same != method.needs_data


def test_wanda_ranks_by_brute_force():
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(3, 8, generator=generator), torch.randn(50, 8, generator=generator)
    pruned = wanda(weight, x.t() @ x, Target(0.5))
    for row in range(3):
        scores = {j: abs(float(weight[row, j])) * float(sum(v * v for v in x[:, j])) ** 0.5 for j in range(8)}
        gone = sorted(scores, key=scores.get)[:4]
        assert all((pruned[row, j] == 0) == (j in gone) for j in range(8))
        assert all(pruned[row, j] == weight[row, j] for j in range(8) if j not in gone)


def test_sparsegpt_is_optimal_brain_surgery_column_by_column():
    """The same by dense algebra: each removed weight's loss goes to the columns after it, by the inverse Hessian of
    the columns from it on, which is inverted anew at every column.
    """
    weight, gram = problem()
    pruned = sparsegpt.sparsegpt(weight, gram, Target(0.5))
    hessian = gram.double() + sparsegpt.DAMP * gram.double().diagonal().mean() * torch.eye(16)
    expected, mask = weight.double().clone(), pruned != 0
    for j in range(16):
        inverse = torch.linalg.inv(hessian[j:, j:])
        removed = torch.where(mask[:, j], 0, expected[:, j])
        expected[:, j:] -= removed[:, None] / inverse[0, 0] * inverse[0]
        expected[:, j] = torch.where(mask[:, j], expected[:, j], 0)
    torch.testing.assert_close(pruned.double(), expected, rtol=1e-3, atol=1e-4)


def test_sparsegpt_in_blocks_meets_the_sparsity_of_the_matrix(monkeypatch):
    monkeypatch.setattr(sparsegpt, "BLOCK", 5)
    weight, gram = problem(rows=7)
    pruned = sparsegpt.sparsegpt(weight, gram, Target(0.6))
    assert int((pruned == 0).sum()) == int(7 * 16 * 0.6)


def least_squares(weight, gram, mask, damp):
    """The exact solution on a mask, row by row, in double precision."""
    hessian = gram.double() + damp * torch.diag(gram.double().diagonal())
    found = torch.zeros(weight.shape, dtype=torch.float64)
    for row, stays in enumerate(mask):
        s = stays.nonzero().squeeze(1)
        found[row, s] = torch.linalg.solve(hessian[s][:, s], hessian[s] @ weight[row].double())
    return found


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_admm_approaches_least_squares_on_its_mask(target):
    weight, gram = problem()
    pruned = admm.solve(weight, gram, target, gradual=0, iterations=500)
    exact = least_squares(weight, gram, pruned != 0, admm.DAMP)
    torch.testing.assert_close(pruned.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gradual", [0, admm.GRADUAL])
def test_the_error_never_rises_once_the_mask_is_fixed(gradual):
    weight, gram = problem()
    errors = []
    admm.solve(
        weight, gram, Target(0.6), gradual=gradual, iterations=60,
        log=lambda found: errors.append(reconstruction_error(found, weight, damped(gram))),
    )  # fmt: skip
    fixed = errors[max(gradual, 1) :]
    assert all(later <= earlier * (1 + 1e-4) for earlier, later in zip(fixed, fixed[1:]))


def damped(gram):
    return gram + admm.DAMP * torch.diag(gram.diagonal())


def test_the_gradual_mask_grows_by_the_cubic_schedule():
    weight, gram = problem(columns=100)
    zeros = []
    admm.solve(weight, gram, Target(0.6), gradual=15, log=lambda found: zeros.append(int((found[0] == 0).sum())))
    assert zeros == [int(100 * 0.6 * (1 - (1 - min(t, 15) / 15) ** 3)) for t in range(1, 21)]


def test_removing_several_at_once_is_the_closed_form():
    weight, gram = problem()
    mask = kept(weight.abs(), Target(0.6))
    found = refit.refit(weight, gram, mask)
    inverse = torch.linalg.inv(gram.double() + refit.DAMP * gram.double().diagonal().mean() * torch.eye(16))
    for row, stays in enumerate(mask):
        p = (~stays).nonzero().squeeze(1)
        change = -weight[row, p].double() @ torch.linalg.inv(inverse[p][:, p]) @ inverse[p]
        torch.testing.assert_close(found[row].double(), weight[row].double() + change, rtol=1e-3, atol=1e-4)
    assert not found[~mask].any()


def test_better_updates_have_smaller_errors():
    weight, gram = problem(rows=40, columns=64, samples=500)
    target = Target(0.6)
    best, better, simple = (method(weight, gram, target) for method in (admm.admm_gradual, sparsegpt.sparsegpt, wanda))
    errors = [reconstruction_error(found, weight, gram) for found in (best, better, simple)]
    assert errors == sorted(errors)
    assert reconstruction_error(refit.refit(weight, gram, simple != 0), weight, gram) < errors[-1]


def test_inputs_that_are_always_zero_cost_nothing():
    weight, gram = problem()
    gram[3], gram[:, 3] = 0, 0
    for method in (wanda, sparsegpt.sparsegpt, admm.admm, admm.admm_gradual):
        pruned = method(weight, gram, Target(0.5))
        assert torch.isfinite(pruned).all() and not pruned[:, 3].any()


# --- Models ------------------------------------------------------------------------------------------------------


def logits(model):
    with torch.no_grad():
        return model(input_ids=tiny_tokens()).logits


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_family_is_pruned_layer_by_layer(kind):
    model = tiny_family(kind)
    dense = copy.deepcopy(model)
    rows = prune_layers(model, [tiny_tokens()], "0-1", "wanda", Target(0.5))
    assert {row["layer"] for row in rows} == {0, 1} and all(row["zeros"] >= 0.5 - 1 / 24 for row in rows)
    assert all(1e-3 < row["error"] < 1 for row in rows)
    assert not torch.allclose(logits(model), logits(dense))


def sliding_windows():
    """The first layer sees three tokens, the second all."""
    return tiny_family("gemma2", sliding_window=3)


@pytest.mark.parametrize("make", [tiny_llama, sliding_windows])
def test_later_layers_see_what_pruned_layers_put_out(make):
    """Pruning both layers is pruning the first, and then the second of that model."""
    whole, steps = make(), make()
    prune_layers(whole, [tiny_tokens()], "0-1", "sparsegpt", Target(0.5))
    for layers in ("0", "1"):
        prune_layers(steps, [tiny_tokens()], layers, "sparsegpt", Target(0.5))
    assert torch.equal(logits(whole), logits(steps))


def test_the_gram_matrix_is_of_all_batches():
    one, two = tiny_llama(), tiny_llama()
    tokens = tiny_tokens(samples=4)
    first, second = (
        prune_layers(model, batches, "0-1", "wanda", Target(0.5))
        for model, batches in ((one, [tokens]), (two, list(tokens.split(2))))
    )
    assert [row["error"] for row in first] == pytest.approx([row["error"] for row in second], rel=1e-3)


def test_a_mask_by_scores():
    model = tiny_llama()
    scores = {name: torch.rand(weight.shape) for name, weight in model.named_parameters()}
    prune_layers(model, [tiny_tokens()], "1", "masked", Target(0.5), importance=scores.__getitem__)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(model.get_parameter(name) != 0, kept(scores[name], Target(0.5)))


@pytest.mark.parametrize("update", ["admm", "exact"])
def test_an_update_keeps_the_mask_and_lowers_the_error(update):
    plain, updated = tiny_llama(), tiny_llama()
    before = prune_layers(plain, [tiny_tokens()], "0", "wanda", Target(0.5))
    after = prune_layers(updated, [tiny_tokens()], "0", "wanda", Target(0.5), update=update)
    assert all(row["error"] < old["error"] for row, old in zip(after, before))
    for row in after:
        one, two = (model.get_submodule(row["linear"]).weight for model in (plain, updated))
        assert torch.equal(one == 0, two == 0)


def test_a_stopped_pruning_goes_on_and_ends_the_same(tmp_path):
    whole, stopped, resumed = tiny_llama(layers=3), tiny_llama(layers=3), tiny_llama(layers=3)
    rows = prune_layers(whole, [tiny_tokens()], "0-2", "sparsegpt", Target(0.5))

    def stop(row):
        if row["layer"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_layers(stopped, [tiny_tokens()], "0-2", "sparsegpt", Target(0.5), log=stop, state=tmp_path)
    seen = []
    again = prune_layers(resumed, [tiny_tokens()], "0-2", "sparsegpt", Target(0.5), log=seen.append, state=tmp_path)
    assert same_bits(resumed, bits(whole)) and seen == again
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]
    with pytest.raises(StudyError, match="is of another pruning .other method"):
        prune_layers(tiny_llama(layers=3), [tiny_tokens()], "0-2", "wanda", Target(0.5), state=tmp_path)


def test_a_pruning_by_other_scores_does_not_go_on(tmp_path):
    model = tiny_llama()
    for power in (1, 2):
        scores = {name: (weight.detach() - 0.01).abs() ** power for name, weight in model.named_parameters()}
        with pytest.raises(StudyError, match="other importance") if power == 2 else nullcontext():
            prune_layers(
                copy.deepcopy(model), [tiny_tokens()], "0-1", "masked", Target(0.5),
                importance=scores.__getitem__, state=tmp_path,
            )  # fmt: skip


def test_bad_input_is_refused_before_anything_changes():
    model = tiny_llama()
    before = bits(model)
    with pytest.raises(StudyError, match="unknown method 'obs'; known: admm, admm-gradual"):
        prune_layers(model, [tiny_tokens()], "0-1", "obs", Target(0.5))
    with pytest.raises(StudyError, match="48 columns, which 3:7 does not divide"):
        prune_layers(model, [tiny_tokens()], "0-1", "wanda", Target.parse("3:7"))
    with pytest.raises(StudyError, match="'masked' needs an importance"):
        prune_layers(model, [tiny_tokens()], "0-1", "masked", Target(0.5))
    with pytest.raises(StudyError, match="'wanda' takes no importance"):
        prune_layers(model, [tiny_tokens()], "0-1", "wanda", Target(0.5), importance={}.__getitem__)
    assert same_bits(model, before)


# --- Numbers that are not finite -----------------------------------------------------------------------------------

LINEAR = "model.layers.1.mlp.up_proj"
BAD = [float("nan"), float("inf"), -float("inf")]


def pruned_by(model, method, update="none", **options):
    """``model`` pruned in place by ``method``, a masked one by the weights' sizes."""
    sizes = {name: weight.detach().abs() for name, weight in model.named_parameters()}
    importance = sizes.__getitem__ if sparse.METHODS[method].takes_scores else None
    return prune_layers(
        model, [tiny_tokens()], "0-1", method, Target(0.5), **{"importance": importance, "update": update} | options
    )


def refused(message, model, method, **options):
    """The pruning ends in one line, and nothing that it kept is of a layer that ended so."""
    with pytest.raises(StudyError, match=message) as caught:
        pruned_by(model, method, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", sorted(sparse.METHODS))
@pytest.mark.parametrize("bad", BAD)
def test_a_weight_that_is_not_finite_is_named_before_anything_changes(method, bad):
    model = tiny_llama()
    model.get_parameter(f"{LINEAR}.weight").data[3, 5] = bad
    before = bits(model)
    refused(rf"the weights are not finite in {LINEAR} \(method {method}\)", model, method)
    assert same_bits(model, before)


@pytest.mark.parametrize("method", sorted(sparse.METHODS))
@pytest.mark.parametrize("bad", BAD)
def test_an_input_that_is_not_finite_is_named_and_its_layer_not_kept(method, bad, tmp_path):
    """The norm before the MLP of the second layer gives it: the first layer is pruned, and kept."""
    model = tiny_llama()
    model.get_parameter("model.layers.1.post_attention_layernorm.weight").data[0] = bad
    named = rf"sums of squared inputs are not finite in model.layers.1.mlp.\w+ \(method {method}\)"
    refused(named, model, method, state=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["layer-0.safetensors"]


@pytest.mark.parametrize("bad", BAD)
def test_a_score_that_is_not_finite_is_named(bad):
    model = tiny_llama()
    scores = {name: weight.detach().abs() for name, weight in model.named_parameters()}
    scores[f"{LINEAR}.weight"][0, 0] = bad
    before = bits(model)
    named = rf"the scores are not finite in {LINEAR} \(method masked\)"
    refused(named, model, "masked", importance=scores.__getitem__)
    assert same_bits(model, before)


@pytest.mark.parametrize("method", sorted(ELEMENTWISE))
def test_scores_are_of_finite_weights_and_finite_themselves(method, monkeypatch):
    model = tiny_llama()
    units, name = prunable_units(model, "0-1"), f"{LINEAR}.weight"
    infinite = {key: torch.full_like(weight, torch.inf) for key, weight in units.parameters(model).items()}
    monkeypatch.setitem(ELEMENTWISE._records, "infinite", ElementScore(lambda *arguments: infinite))
    monkeypatch.setattr(pruners, "check_settings", lambda name, settings: None)
    with pytest.raises(StudyError, match=r"scores are not finite in \S+layers.0.self_attn.q_proj \(method infinite\)"):
        element_scores("infinite", model, [tiny_tokens()], units)
    model.get_parameter(name).data[0, 0] = float("nan")
    with pytest.raises(StudyError, match=rf"the weights are not finite in {LINEAR} \(method {method}\)"):
        element_scores(method, model, [tiny_tokens()], units)


@pytest.mark.parametrize("method", sorted(sparse.METHODS))
@pytest.mark.parametrize("bad", BAD)
def test_a_result_that_is_not_finite_is_not_kept(method, bad, monkeypatch, tmp_path):
    """The first linear layer gives what it should, the second does not: the layer of both is not kept."""
    found, calls = sparse.METHODS[method], []

    def broken(weight, *arguments):
        calls.append(weight)
        return found.function(weight, *arguments) + (bad if len(calls) == 2 else 0)

    monkeypatch.setitem(sparse.METHODS._records, method, replace(found, function=broken))
    named = rf"pruned weights are not finite in model.layers.0.self_attn.k_proj \(method {method}\)"
    refused(named, tiny_llama(), method, state=tmp_path)
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_weights_that_half_precision_cannot_hold_are_not_kept(monkeypatch):
    """70,000 is finite in fp32, and above the largest number of float16."""
    found = sparse.METHODS["wanda"]
    large = replace(found, function=lambda *arguments: found.function(*arguments).clamp_max(0) + 70_000)
    monkeypatch.setitem(sparse.METHODS._records, "wanda", large)
    refused("pruned weights are not finite in model.layers.0.self_attn.q_proj", tiny_llama().half(), "wanda")


@pytest.mark.parametrize("update", sorted(set(sparse.UPDATES) - {"none"}))
def test_an_update_that_is_not_finite_is_named(update, monkeypatch):
    monkeypatch.setitem(sparse.UPDATES._records, update, Update(lambda weight, gram, keep: weight / 0))
    named = rf"pruned weights are not finite in \S+q_proj \(method wanda, update {update}\)"
    refused(named, tiny_llama(), "wanda", update=update)


@pytest.mark.parametrize("method", ["sparsegpt", "admm", "admm-gradual", "joint-removal"])
def test_a_matrix_that_cannot_be_factorised_is_named(method, monkeypatch):
    monkeypatch.setattr(sequential, "gram_matrices", lambda walk, layer, linears: negative(linears))
    refused(rf"cannot be factorised in model.layers.0.self_attn.q_proj \(method {method}\)", tiny_llama(), method)


def negative(linears):
    """No Gram matrix: it has a negative eigenvalue, as rounding can give a nearly singular one."""
    return {name: 2 - 3 * torch.eye(linear.in_features) for name, linear in linears.items()}


def test_a_layer_without_inputs_has_no_error_and_no_exact_update():
    model = tiny_llama()
    model.get_parameter("model.layers.0.input_layernorm.weight").data.zero_()
    rows = pruned_by(copy.deepcopy(model), "wanda")
    assert [row["error"] for row in rows if row["linear"].endswith("layers.0.self_attn.q_proj")] == [0.0]
    named = r"cannot be factorised in model.layers.0.self_attn.q_proj \(method wanda, update exact\)"
    refused(named, model, "wanda", update="exact")


def test_a_kept_layer_that_is_not_finite_is_not_taken(tmp_path):
    pruned_by(tiny_llama(), "wanda", state=tmp_path)
    path = tmp_path / "layer-1.safetensors"
    weights, meta = tensorfile.load(path, "sparse")
    weights[LINEAR][0, 0] = float("nan")
    tensorfile.save(path, "sparse", weights, meta)
    refused(rf"the kept weights are not finite in {LINEAR}", tiny_llama(), "wanda", state=tmp_path)


@pytest.mark.slow
def test_on_the_real_model_better_updates_have_smaller_errors():
    settings = {"calibration": "sotu-early", "samples": 16, "length": 128, "corpora": ["wiki"]}
    settings |= {"window": 128, "windows": 1}
    study = Study(model_name="smollm2-135m-instruct", layers="12", **settings)
    batches, methods = study.batches(0), ("wanda", "sparsegpt", "admm-gradual")
    wanda, sparsegpt, gradual = (
        prune_layers(copy.deepcopy(study.model), batches, "12", method, Target(0.6)) for method in methods
    )
    for one, two, three in zip(wanda, sparsegpt, gradual, strict=True):
        assert three["error"] <= two["error"] <= one["error"], one["linear"]
