"""Rebuilt masks against brute force: scores by autograd of a block's error, pairs by their ranks."""

import copy
import math
from itertools import product

import pytest
import torch
from helpers.families import tiny_family
from helpers.models import bits, same_bits, tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.sparse import barber, swaps
from mpstudy.sparse.barber import check_rebuild, rebuild
from mpstudy.sparse.finished import linears_of
from mpstudy.sparse.masks import Target
from mpstudy.sparse.sequential import prune_layers
from mpstudy.structure.families import FAMILIES

HALF = Target(0.5)


def dense_of(model) -> dict[str, torch.Tensor]:
    count = len(model.model.layers)
    linears = {name: linear for layer in range(count) for name, linear in linears_of(model, layer).items()}
    return {name: linear.weight.detach().clone() for name, linear in linears.items()}


def sparse_pair(method="wanda", target=HALF, make=tiny_llama):
    """A dense model's weights, and the model pruned."""
    model = make()
    dense = dense_of(model)
    prune_layers(model, [tiny_tokens()], "0-1", method, target)
    return model, dense


def pools(scope, shapes):
    """The places (matrix, row, column) of each pool."""
    every = [(m, i, j) for m, (rows, columns) in enumerate(shapes) for i in range(rows) for j in range(columns)]
    key = {"block": lambda p: (), "matrix": lambda p: p[:1], "row": lambda p: p[:2], "column": lambda p: (p[0], p[2])}
    found = {}
    for place in every:
        found.setdefault(key[scope](place), []).append(place)
    return found.values()


def by_hand(scores, keeps, scope, share):
    """The masks after swaps, pair by pair."""
    new = [keep.clone() for keep in keeps]
    for pool in pools(scope, [score.shape for score in scores]):
        value = lambda place: float(scores[place[0]][place[1:]])  # noqa: E731
        gone = sorted((p for p in pool if not keeps[p[0]][p[1:]]), key=value, reverse=True)
        stays = sorted((p for p in pool if keeps[p[0]][p[1:]]), key=value)
        gains = [(a, b) for a, b in zip(gone, stays) if value(a) > value(b)]
        for a, b in gains[: int(len(gains) * share)]:
            new[a[0]][a[1:]], new[b[0]][b[1:]] = True, False
    return new


def random_block(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6, 8), (4, 8), (8, 10)]
    scores = [torch.rand(shape, generator=generator) for shape in shapes]
    return scores, [torch.rand(shape, generator=generator) < 0.4 for shape in shapes]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("scope", swaps.SCOPES)
def test_pairs_by_ranks_are_those_of_brute_force(scope, share):
    scores, keeps = random_block()
    expected = by_hand(scores, keeps, scope, share)
    found = swaps.swapped(scores, keeps, scope, share, HALF)
    assert all(torch.equal(one, two) for one, two in zip(found, expected))
    changed = sum(int((one != two).sum()) for one, two in zip(found, keeps))
    assert share < 1 or changed > 20


def test_of_a_pattern_as_many_enter_a_group_as_leave_it():
    """The pairs of a row tell which weights enter; of each group as many of the lowest leave, whatever their pair."""
    generator = torch.Generator().manual_seed(3)
    score, keep = torch.rand(5, 16, generator=generator), torch.zeros(5, 16, dtype=torch.bool)
    keep.unflatten(1, (-1, 4))[:, :, :2] = True
    (found,) = swaps.swapped([score], [keep], "row", 0.5, Target.parse("2:4"))
    assert (found.unflatten(1, (-1, 4)).sum(-1) == 2).all()
    for row in range(5):
        value = score[row].tolist()
        gone = sorted((j for j in range(16) if not keep[row, j]), key=lambda j: -value[j])
        stays = sorted((j for j in range(16) if keep[row, j]), key=lambda j: value[j])
        gains = sum(value[a] > value[b] for a, b in zip(gone, stays))
        assert gains > 1
        entering, expected = gone[: int(gains * 0.5)], keep[row].clone()
        for start in range(0, 16, 4):
            coming = [j for j in entering if start <= j < start + 4]
            leaving = [j for j in stays if start <= j < start + 4][: len(coming)]
            expected[coming], expected[leaving] = True, False
        assert torch.equal(found[row], expected)


def states(model, layer, part):
    """What a part of a layer is called with on each sample, in an ordinary forward pass."""
    calls, module = [], model.model.layers[layer].get_submodule(part)
    note = lambda module, given, options: calls.append((given, options))  # noqa: E731
    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    for sample in tiny_tokens():
        model.model(input_ids=sample[None], use_cache=False)
    hook.remove()
    return calls


def scores_by_autograd(sparse, dense, layer, part):
    """``|w| sqrt(mean g^2)`` with a model that has the dense weights."""
    twin = copy.deepcopy(sparse)
    module, own = twin.model.layers[layer].get_submodule(part), sparse.model.layers[layer].get_submodule(part)
    linears = {name: each for name, each in module.named_modules() if isinstance(each, torch.nn.Linear)}
    for name, linear in linears.items():
        linear.weight.data = dense[f"model.layers.{layer}.{part}.{name}"].clone()
    squares = dict.fromkeys(linears, 0)
    with torch.no_grad():
        calls = states(sparse, layer, part)
    first = lambda found: found[0] if isinstance(found, tuple) else found  # noqa: E731
    for given, options in calls:
        twin.zero_grad()
        found, wanted = (first(each(*given, **options)) for each in (module, own))
        torch.nn.functional.mse_loss(found, wanted.detach()).backward()
        squares = {name: squares[name] + linear.weight.grad**2 for name, linear in linears.items()}
    return {name: each.weight.detach().abs() * (squares[name] / len(calls)).sqrt() for name, each in linears.items()}


@pytest.mark.parametrize(
    "method, scope, share",
    [("magnitude", "block", 0.1), ("wanda", "row", 0.5), ("sparsegpt", "matrix", 0.1), ("wanda", "column", 1.0)],
)
def test_layers_are_rebuilt_as_by_brute_force(method, scope, share):
    """Attention first; the MLP then sees what the rebuilt attention puts out, and the next layer what both do."""
    model, dense = sparse_pair(method)
    expected = copy.deepcopy(model)
    for layer, part in product((0, 1), ("self_attn", "mlp")):
        scores = scores_by_autograd(expected, dense, layer, part)
        linears = {name: expected.model.layers[layer].get_submodule(f"{part}.{name}") for name in scores}
        keeps = [linear.weight != 0 for linear in linears.values()]
        expected_keeps = by_hand(list(scores.values()), keeps, scope, share)
        for (name, linear), new in zip(linears.items(), expected_keeps):
            linear.weight.data = torch.where(new, dense[f"model.layers.{layer}.{part}.{name}"], 0)
    rows = rebuild(model, dense, [tiny_tokens()], "0-1", scope, HALF, share=share)
    assert [row["block"] for row in rows] == 2 * ["attention", "mlp"] and all(row["swaps"] for row in rows)
    assert same_bits(model, bits(expected))


def test_the_errors_are_those_of_the_block_on_the_samples():
    model, dense = sparse_pair("magnitude")
    before = copy.deepcopy(model)
    rows = rebuild(model, dense, [tiny_tokens()], "0", "block", HALF)
    whole = copy.deepcopy(before)
    for name, weight in dense.items():
        whole.get_submodule(name).weight.data = weight
    with torch.no_grad():
        calls = states(before, 0, "self_attn")
        attention = lambda which: [which.model.layers[0].self_attn(*a, **b)[0] for a, b in calls]  # noqa: E731
        wanted, old, new = attention(whole), attention(before), attention(model)
    size = sum(float(out.square().sum()) for out in wanted)
    error = lambda outs: sum(float((a - b).square().sum()) for a, b in zip(outs, wanted)) / size  # noqa: E731
    assert rows[0]["before"] == pytest.approx(error(old), rel=1e-5)
    assert rows[0]["after"] == pytest.approx(error(new), rel=1e-5)
    assert rows[0]["after"] < rows[0]["before"]


@pytest.mark.parametrize("scope", swaps.SCOPES)
def test_the_sparsity_of_each_pool_stays(scope):
    model, dense = sparse_pair("sparsegpt")
    zeros = lambda: {name: model.get_submodule(name).weight == 0 for name in dense}  # noqa: E731
    before = zeros()
    rebuild(model, dense, [tiny_tokens()], "0-1", scope, HALF, share=0.5)
    counts = {"matrix": lambda mask: mask.sum(), "row": lambda mask: mask.sum(1), "column": lambda mask: mask.sum(0)}
    if scope == "block":
        assert sum(int(mask.sum()) for mask in zeros().values()) == sum(int(mask.sum()) for mask in before.values())
    else:
        assert all(torch.equal(counts[scope](mask), counts[scope](before[name])) for name, mask in zeros().items())


def test_all_that_stays_has_its_dense_weight():
    """As in the paper's runs: what SparseGPT made of it is lost."""
    model, dense = sparse_pair("sparsegpt")
    rebuild(model, dense, [tiny_tokens()], "0-1", "block", HALF)
    for name, weight in dense.items():
        new = model.get_submodule(name).weight
        assert torch.equal(new[new != 0], weight[new != 0])


def test_the_given_weights_are_left_alone():
    model, dense = sparse_pair()
    before = {name: weight.clone() for name, weight in dense.items()}
    rebuild(model, dense, [tiny_tokens()], "0-1", "block", HALF)
    assert all(torch.equal(weight, dense[name]) and not dense[name].requires_grad for name, weight in before.items())


def test_a_pattern_stays():
    model, dense = sparse_pair("wanda", Target.parse("2:4"))
    rows = rebuild(model, dense, [tiny_tokens()], "0-1", "row", Target.parse("2:4"), share=0.5)
    assert sum(row["swaps"] for row in rows)
    for name in dense:
        assert ((model.get_submodule(name).weight != 0).unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_the_default_shares_are_those_of_the_paper():
    one, dense = sparse_pair()
    two, three = copy.deepcopy(one), copy.deepcopy(one)
    rebuild(one, dense, [tiny_tokens()], "0-1", "matrix", HALF)
    rebuild(two, dense, [tiny_tokens()], "0-1", "matrix", HALF, share=0.1)
    rebuild(three, dense, [tiny_tokens()], "0-1", "matrix", HALF, share=0.2)
    assert same_bits(one, bits(two)) and not same_bits(one, bits(three))
    assert barber.SHARES == {"block": 0.1, "matrix": 0.1, "row": 0.01, "column": 0.001}


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"opt"}))
def test_every_family_is_rebuilt(kind):
    model, dense = tiny_family(kind), None
    places = [name for layer in (0, 1) for name in linears_of(model, layer)]
    dense = {name: model.get_submodule(name).weight.detach().clone() for name in places}
    prune_layers(model, [tiny_tokens()], "0-1", "magnitude", HALF)
    rows = rebuild(model, dense, [tiny_tokens()], "0-1", "block", HALF)
    assert len(rows) == 4 and all(row["swaps"] and math.isfinite(row["after"]) for row in rows)


def test_a_stopped_rebuild_goes_on_and_ends_the_same(tmp_path):
    model, dense = sparse_pair()
    stopped, resumed = copy.deepcopy(model), copy.deepcopy(model)
    rows = rebuild(model, dense, [tiny_tokens()], "0-1", "block", HALF)

    def stop(row):
        if row["layer"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(stopped, dense, [tiny_tokens()], "0-1", "block", HALF, log=stop, state=tmp_path)
    again = rebuild(resumed, dense, [tiny_tokens()], "0-1", "block", HALF, state=tmp_path)
    assert same_bits(resumed, bits(model))
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]
    other, _ = sparse_pair()
    with pytest.raises(StudyError, match="is of another pruning .other scope"):
        rebuild(other, dense, [tiny_tokens()], "0-1", "row", HALF, state=tmp_path)
    dense["model.layers.1.mlp.up_proj"] = dense["model.layers.1.mlp.up_proj"] + 1
    with pytest.raises(StudyError, match="is of another pruning .other dense"):
        rebuild(other, dense, [tiny_tokens()], "0-1", "block", HALF, state=tmp_path)


def test_what_cannot_be_rebuilt_is_refused():
    config = tiny_llama().config
    with pytest.raises(StudyError, match="unknown scope 'layer'; known: block, column, matrix, row"):
        check_rebuild(config, "layer", HALF)
    with pytest.raises(StudyError, match="2:4 masks are rebuilt in their rows: the scope is row, not block"):
        check_rebuild(config, "block", Target.parse("2:4"))
    check_rebuild(config, "row", HALF, 1.0)
    with pytest.raises(StudyError, match=r"the share of swaps must be a number in \[0, 1\], not 1.5"):
        check_rebuild(config, "row", HALF, 1.5)
    with pytest.raises(StudyError, match="models of opt have no module that is an MLP"):
        check_rebuild(tiny_family("opt").config, "row", HALF)


def test_dense_weights_are_checked_before_anything_changes():
    model, dense = sparse_pair()
    before = bits(model)
    bad = dense["model.layers.1.mlp.up_proj"].clone()
    bad[0, 0] = float("nan")
    with pytest.raises(
        StudyError, match=r"the dense weights are not finite in model.layers.1.mlp.up_proj \(method reb"
    ):
        rebuild(model, dense | {"model.layers.1.mlp.up_proj": bad}, [tiny_tokens()], "0-1", "block", HALF)
    del dense["model.layers.1.mlp.up_proj"]
    with pytest.raises(StudyError, match=r"there is no dense weight of model.layers.1.mlp.up_proj of the shape"):
        rebuild(model, dense, [tiny_tokens()], "0-1", "block", HALF)
    assert same_bits(model, before)


def test_half_precision_is_scored_in_single():
    """A float32 model of the same weights is rebuilt alike, but for the rounding of what the layers put out."""
    model = tiny_llama().bfloat16()
    dense = dense_of(model)
    prune_layers(model, [tiny_tokens()], "0-1", "magnitude", HALF)
    single = copy.deepcopy(model).float()
    rebuild(model, dense, [tiny_tokens()], "0-1", "block", HALF)
    rebuild(single, {name: weight.float() for name, weight in dense.items()}, [tiny_tokens()], "0-1", "block", HALF)
    assert model.dtype == torch.bfloat16
    name = "model.layers.0.self_attn.v_proj"
    same = (model.get_submodule(name).weight == 0) == (single.get_submodule(name).weight == 0)
    assert same.float().mean() > 0.97
