"""Masks that come from others keep their size, their best units and most of what their parents had."""

import itertools
from collections import Counter

import pytest
import torch

from mpstudy.pruners.offspring import Offspring, _exchanged, _resized
from mpstudy.structure.units import UnitSet
from mpstudy.structure.weights import seeded

SIZES = {"attention": (9, 9, 4, 9), "mlp": (40, 31, 40, 57)}
SETS = [UnitSet(layer, kind, SIZES[kind][layer], ()) for layer in range(4) for kind in SIZES]
REMOVED = {
    f"layers.{layer}.{kind}": n
    for kind, per in (("attention", (2, 3, 1, 2)), ("mlp", (8, 9, 8, 20)))
    for layer, n in enumerate(per)
}
IMPORTANCE = {each.key: torch.rand(each.count, generator=seeded("importance", each.key)) for each in SETS}


@pytest.fixture
def offspring():
    return Offspring(SETS, IMPORTANCE)


def kept(mask, kind):
    return sum(int(mask[each.key].sum()) for each in SETS if each.kind == kind)


def random_mask(number: int) -> dict:
    """A mask of the size of the even one, with no regard to importance."""
    mask = Offspring(SETS, IMPORTANCE).by_importance(REMOVED)
    for step in range(30):
        mask = Offspring(SETS, IMPORTANCE).mutated(mask, seeded("random", number, step))
    return mask


def assert_whole(mask, like):
    assert mask.keys() == like.keys()
    for each in SETS:
        value = mask[each.key]
        assert value.dtype == torch.bool and value.shape == (each.count,) and value.any()
    for kind in SIZES:
        assert kept(mask, kind) == kept(like, kind)


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in second)


def test_by_importance_the_least_go(offspring):
    mask = offspring.by_importance(REMOVED)
    for key, number in REMOVED.items():
        assert sorted((~mask[key]).nonzero().squeeze(1).tolist()) == sorted(IMPORTANCE[key].argsort()[:number].tolist())


@pytest.mark.parametrize("number", range(40))
def test_a_mutation_keeps_the_size_and_four_fifths_of_each_set(number, offspring):
    parent = random_mask(number % 8)
    child = offspring.mutated(parent, seeded(number))
    assert_whole(child, parent)
    assert not same(child, parent)
    for key, before in parent.items():
        overlap, units = int((before & child[key]).sum()), int(before.sum())
        assert 5 * overlap >= 4 * units or (units < 5 and overlap == units - 1)


def test_mutations_reach_every_size_of_change_that_is_allowed(offspring):
    parent, key = offspring.by_importance(REMOVED), "layers.3.mlp"  # 37 units: 7 may change
    changes = Counter(int((parent[key] & ~offspring.mutated(parent, seeded(n))[key]).sum()) for n in range(600))
    assert sorted(changes) == list(range(8))


@pytest.mark.parametrize("number", range(30))
def test_a_crossover_has_whole_blocks_but_for_few_units(number, offspring):
    first, second = random_mask(number % 8), random_mask(8 + number % 5)
    child = offspring.crossed(first, second, seeded(number))
    assert_whole(child, first)
    for kind in SIZES:
        difference = 0
        for layer in range(4):
            key = f"layers.{layer}.{kind}"
            parents = [int((child[key] ^ parent[key]).sum()) for parent in (first, second)]
            difference += min(parents)
        sources = [
            sum(int(choice[layer][f"layers.{layer}.{kind}"].sum()) for layer in range(4))
            for choice in itertools.product((first, second), repeat=4)
        ]
        assert difference <= max(abs(total - kept(first, kind)) for total in sources)


def test_a_block_comes_from_one_parent(offspring):
    """Parents with equal widths need no repair: each block is then one parent's, attention and MLP alike."""
    first = offspring.by_importance(REMOVED)
    second = {key: value.roll(3) for key, value in first.items()}
    seen = set()
    for number in range(200):
        child = offspring.crossed(first, second, seeded(number))
        source = tuple(
            0 if same(child, {key: first[key] for key in pair}) else 1
            for pair in ([f"layers.{layer}.{kind}" for kind in SIZES] for layer in range(4))
        )
        for layer, parent in enumerate(source):
            assert same(
                child, {f"layers.{layer}.{kind}": (first, second)[parent][f"layers.{layer}.{kind}"] for kind in SIZES}
            )
        seen.add(source)
    assert len(seen) == 16


@pytest.mark.parametrize("number", range(20))
def test_new_masks_differ_in_their_widths_alone(number, offspring):
    even = offspring.by_importance(REMOVED)
    mask = offspring.widened(even, seeded(number))
    assert_whole(mask, even)
    for key, value in mask.items():
        removed = int((~value).sum())
        assert same({key: value}, {key: offspring.by_importance(REMOVED | {key: removed})[key]})
    assert [int(value.sum()) for value in mask.values()] != [int(value.sum()) for value in even.values()]


def test_the_parents_are_left_as_they_are(offspring):
    first, second = random_mask(1), random_mask(2)
    copies = [{key: value.clone() for key, value in mask.items()} for mask in (first, second)]
    for number in range(10):
        offspring.crossed(first, second, seeded(number))
        offspring.mutated(first, seeded(number))
        offspring.widened(second, seeded(number))
    assert same(first, copies[0]) and same(second, copies[1])


def test_the_same_draw_gives_the_same_mask(offspring):
    parent = random_mask(0)
    assert same(offspring.mutated(parent, seeded(5)), offspring.mutated(parent, seeded(5)))
    assert not same(offspring.mutated(parent, seeded(5)), offspring.mutated(parent, seeded(6)))


def test_a_set_of_which_nothing_is_removed_can_lose_units_and_one_alone_stays_as_it_is():
    sets = [UnitSet(0, "mlp", 4, ()), UnitSet(1, "mlp", 4, ())]
    offspring = Offspring(sets, {each.key: torch.arange(4.0) for each in sets})
    parent = offspring.by_importance({"layers.0.mlp": 0, "layers.1.mlp": 3})
    children = [offspring.mutated(parent, seeded(number)) for number in range(40)]
    assert {int(child["layers.0.mlp"].sum()) for child in children} == {3, 4}
    assert all(sum(int(value.sum()) for value in child.values()) == 5 for child in children)
    alone = Offspring(sets[:1], {"layers.0.mlp": torch.arange(4.0)})
    full = {"layers.0.mlp": torch.ones(4, dtype=torch.bool)}
    assert same(alone.mutated(full, seeded(0)), full)


def test_resizing_by_hand():
    units, importance = torch.tensor([True, True, False, False]), torch.tensor([2.0, 1.0, 3.0, 4.0])
    assert _resized(units, -1, importance).tolist() == [True, False, False, False]
    assert _resized(units, 1, importance).tolist() == [True, True, False, True]
    assert _resized(units, 0, importance).tolist() == units.tolist()


def test_an_exchange_takes_from_what_the_parent_has():
    parent, now = torch.tensor([True, True, True, False, False]), torch.tensor([True, True, False, True, False])
    for number in range(20):
        found = _exchanged(now, parent, 1, seeded(number))
        assert found[3] and found.sum() == 3 and int(found[:2].sum()) == 1
