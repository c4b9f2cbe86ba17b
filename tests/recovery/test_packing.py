"""In every family that packs, the loss of a packed row is that of its examples alone, as it is of padded rows."""

import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import BYTES

from mpstudy.recovery.examples import IGNORED, loss_sum, packed, padded
from mpstudy.structure.families import FAMILIES

SIZES = [(100, 40), (30, 10), (25, 3), (70, 35), (9, 4)]  # tokens, and how many of them have no loss
WINDOWS = ((0, 1, 2), (3, 4))  # the second is filled up
KINDS = sorted(FAMILIES)


def attentive(kind, attention="default"):
    """A tiny model in which it matters what a token attends to: all that attention adds is 64 times as large."""
    model = tiny_family(kind)
    if attention != "default":
        model.set_attn_implementation(attention)
    adapter = FAMILIES[kind]
    for layer in model.get_submodule(adapter.layers):
        attention = layer.get_submodule(adapter.attention)
        for part in adapter.heads(attention)[1]:
            if part.layer not in ("q_proj", "k_proj"):  # the values, alone or with the rest, and what reads them
                attention.get_submodule(part.layer).weight.data.mul_(8)
    return model


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(BYTES, (size,), generator=generator).tolist() for size, _ in SIZES]
    return [(ids, [IGNORED] * silent + ids[silent:]) for ids, (_, silent) in zip(texts, SIZES)]


@torch.no_grad()
def difference(model, batch_of, examples) -> float:
    """Of the loss of a row from the losses of its examples alone, as a share of those; the largest of the rows, which
    are also run together.
    """
    found = []
    for rows in ([WINDOWS[0]], [WINDOWS[1]], WINDOWS):
        windows = [[examples[index] for index in row] for row in rows]
        alone = sum(float(loss_sum(model, packed([[each]]), "cpu")) for window in windows for each in window)
        found.append(abs(float(loss_sum(model, batch_of(windows), "cpu")) - alone) / alone)
    return max(found)


def joined(windows):
    """Packed rows without positions that begin again: one text a row."""
    return {name: value for name, value in packed(windows).items() if name != "position_ids"}


@pytest.mark.parametrize("attention", ["default", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_row_is_its_examples_unless_the_family_says_otherwise(kind, attention, examples):
    model = attentive(kind, attention)
    found = difference(model, packed, examples)
    if FAMILIES[kind].packs:
        assert found < 1e-5
    else:
        assert found > 1e-3, f"{kind} keeps examples apart by now: it can be packed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_leak_would_be_seen(kind, examples):
    assert difference(attentive(kind), joined, examples) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_padded_rows_are_their_examples_in_every_family(kind, examples):
    assert difference(attentive(kind), lambda windows: padded(sum(windows, [])), examples) < 1e-5
