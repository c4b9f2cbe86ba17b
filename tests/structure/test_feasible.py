"""Shares that a model's units cannot meet are known from its config, before anything is scored."""

import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import tiny_model

from mpstudy.errors import StudyError
from mpstudy.structure import feasible
from mpstudy.structure.families import FAMILIES
from mpstudy.structure.feasible import check_shares
from mpstudy.structure.scores import Scores
from mpstudy.structure.shares import plan_share, removed_shares, unit_sizes
from mpstudy.structure.units import prunable_units

# The tiny Llama: a head group has 2 * 8 * 32 query and output rows and columns each, 8 * 32 keys and values, a channel
# 3 * 32. So a layer has 2 * 1536 + 24 * 96 = 5376, of which 1536 + 23 * 96 = 3744 may go: 0.696.


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_units_and_their_sizes_are_those_of_the_loaded_model(kind):
    model = tiny_family(kind)
    empty = feasible._without_weights(model.config)
    units, found = prunable_units(model, "0-1"), prunable_units(empty, "0-1")
    assert found == units and all(parameter.is_meta for parameter in empty.parameters())
    assert unit_sizes(empty, found) == unit_sizes(model, units)


@pytest.mark.parametrize("share", [0, 0.0, 0.01, 0.1, 0.2, 0.5, 0.69, 0.697])
def test_shares_that_a_plan_meets_pass(share):
    check_shares(tiny_model().config, "0-1", [share])


@pytest.mark.parametrize(
    ("layers", "share", "message"),
    [
        ("0-1", 0.71, "layer 0 has 2 units of attention and 24 units of mlp, .* would lose 0.696 of"),
        ("1", 0.9, "layer 1 has 2 units of attention and 24 units of mlp, .* would lose 0.696 of"),
        ("0-1", 0.008, "share 0.008 cannot be met: layer 0 .* would lose 0.000 of"),  # less than half a channel
        ("attention 0-1", 0.2, "layer 0 has 2 units of attention, .* would lose 0.000 of"),
        ("attention 0-1", 0.8, "layer 0 has 2 units of attention, .* would lose 0.500 of"),
        ("mlp 1", 0.99, "layer 1 has 24 units of mlp, .* would lose 0.958 of"),
        ("hidden", 0.2, "met by heads and channels, not by hidden dimensions"),
    ],
)
def test_shares_that_no_plan_meets_are_one_line(layers, share, message):
    with pytest.raises(StudyError, match=message) as caught:
        check_shares(tiny_model().config, layers, [0.5, share])
    assert "\n" not in str(caught.value)


def test_what_passes_is_what_a_plan_of_the_loaded_model_removes():
    """Over a grid of shares, refused are exactly those that a plan by any scores misses by over half a channel."""
    model = tiny_model()
    units = prunable_units(model, "0-1")
    sizes = unit_sizes(model, units)
    scores = Scores({key: torch.rand(count) for key, count in units.counts.items()}, {})
    for share in (step / 50 for step in range(1, 50)):
        removed = removed_shares(plan_share(scores, units, sizes, share), units, sizes, 1)["removed"]
        met = abs(removed - share) * 5376 <= 48 + 1e-6
        try:
            check_shares(model.config, "0-1", [share])
        except StudyError:
            assert not met
        else:
            assert met


def test_a_config_of_no_model_is_one_line():
    config = tiny_model().config
    config.hidden_size = -1
    with pytest.raises(StudyError, match="no model can be made of this config of llama: ") as caught:
        check_shares(config, "0-1", [0.2])
    assert "\n" not in str(caught.value)
