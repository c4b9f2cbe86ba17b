"""Agreement of masks and scores: hand values, closed forms, enumeration and simulation of chance."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from mpstudy.errors import StudyError
from mpstudy.stability import agreement

A = {"layers.0.mlp": [0, 1, 2], "layers.1.mlp": [5]}
B = {"layers.0.mlp": [1, 2, 3, 4], "layers.1.mlp": []}
NOTHING = {"layers.0.mlp": [], "layers.1.mlp": []}
SIZES = {"layers.0.mlp": 6, "layers.1.mlp": 6}


def random_mask(rng, removed, sizes):
    return {key: rng.permutation(sizes[key])[: removed[key]] for key in sizes}


def all_masks(removed, sizes):
    per_key = [list(combinations(range(sizes[key]), removed[key])) for key in sizes]
    return [dict(zip(sizes, chosen, strict=True)) for chosen in product(*per_key)]


def test_overlaps_by_hand():
    assert agreement.jaccard(A, B) == 2 / 6
    assert agreement.jaccard_by_key(A, B) == {"layers.0.mlp": 2 / 5, "layers.1.mlp": 0}
    assert agreement.overlap(A, B) == 4 / 8
    expected = 2 * (3 * 4 / 6 + 0) / 8
    assert agreement.chance_corrected_overlap(A, B, SIZES) == (0.5 - expected) / (1 - expected)


def test_tensors_count_as_their_indices():
    tensors = {key: torch.tensor(values, dtype=torch.long) for key, values in A.items()}
    assert agreement.jaccard(tensors, A) == 1


def test_masks_that_remove_nothing_agree():
    assert agreement.jaccard(NOTHING, NOTHING) == agreement.overlap(NOTHING, NOTHING) == 1
    assert agreement.jaccard_by_key(NOTHING, NOTHING) == dict.fromkeys(NOTHING, 1)
    assert agreement.jaccard({}, {}) == 1
    assert agreement.chance_corrected_overlap(NOTHING, NOTHING, SIZES) == 1
    assert agreement.jaccard(A, NOTHING) == agreement.overlap(A, NOTHING) == 0


@pytest.mark.parametrize("seed", range(5))
def test_properties_of_random_masks(seed):
    rng = np.random.default_rng(seed)
    sizes = {"heads": 9, "mlp": 40}
    a, b = random_mask(rng, {"heads": 2, "mlp": 10}, sizes), random_mask(rng, {"heads": 3, "mlp": 17}, sizes)
    shuffled = {key: rng.permutation(indices) for key, indices in a.items()}
    for measure in (agreement.jaccard, agreement.overlap):
        assert measure(a, shuffled) == 1
        assert 0 <= measure(a, b) == measure(b, a) <= 1
    jaccard = agreement.jaccard(a, b)
    assert agreement.overlap(a, b) == pytest.approx(2 * jaccard / (1 + jaccard))
    assert agreement.chance_corrected_overlap(a, shuffled, sizes) == 1
    assert agreement.chance_corrected_overlap(a, b, sizes) < agreement.overlap(a, b)


def test_masks_that_avoid_each_other_are_below_chance():
    assert agreement.chance_corrected_overlap({"mlp": [0, 1]}, {"mlp": [2, 3]}, {"mlp": 4}) == -1


@pytest.mark.parametrize(
    ("removed", "sizes"),
    [
        ({"mlp": 2}, {"mlp": 6}),
        ({"mlp": 4}, {"mlp": 6}),
        ({"heads": 1, "mlp": 2}, {"heads": 3, "mlp": 5}),
        ({"layers.0": 1, "layers.1": 1, "layers.2": 2}, {"layers.0": 4, "layers.1": 4, "layers.2": 4}),
        ({"heads": 0, "mlp": 2, "all": 2}, {"heads": 3, "mlp": 4, "all": 2}),
    ],
)
def test_expected_values_equal_the_mean_over_all_pairs_of_masks(removed, sizes):
    masks = all_masks(removed, sizes)
    first = masks[0]  # by symmetry one mask may stay fixed
    jaccards = [agreement.jaccard(first, mask) for mask in masks]
    corrected = [agreement.chance_corrected_overlap(first, mask, sizes) for mask in masks]
    assert agreement.expected_jaccard(removed, sizes) == pytest.approx(np.mean(jaccards), abs=1e-12)
    assert np.mean(corrected) == pytest.approx(0, abs=1e-12)


def test_expected_jaccard_of_one_head_in_nine():
    assert agreement.expected_jaccard({"heads": 1}, {"heads": 9}) == pytest.approx(1 / 9)


def test_expected_jaccard_at_its_ends():
    assert agreement.expected_jaccard({"mlp": 0}, {"mlp": 8}) == 1
    assert agreement.expected_jaccard({"mlp": 8}, {"mlp": 8}) == pytest.approx(1)


def test_expected_jaccard_at_the_size_of_a_model_tends_to_the_ratio_of_expectations():
    keys = [f"layers.{i}.mlp" for i in range(30)]
    share = 0.25
    value = agreement.expected_jaccard(dict.fromkeys(keys, 384), dict.fromkeys(keys, 1536))
    assert share / (2 - share) < value < share / (2 - share) + 1e-4


def test_expected_values_by_simulation():
    rng = np.random.default_rng(0)
    sizes, removed = {"heads": 9, "mlp": 50}, {"heads": 3, "mlp": 10}
    pairs = [(random_mask(rng, removed, sizes), random_mask(rng, removed, sizes)) for _ in range(2000)]
    jaccards = [agreement.jaccard(a, b) for a, b in pairs]
    corrected = [agreement.chance_corrected_overlap(a, b, sizes) for a, b in pairs]
    for sample, expected in ((jaccards, agreement.expected_jaccard(removed, sizes)), (corrected, 0)):
        standard_error = np.std(sample) / np.sqrt(len(sample))
        assert abs(np.mean(sample) - expected) < 4 * standard_error


def test_spearman_by_hand_and_under_monotone_maps():
    x = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([1.0, 2, 3])}
    y = {"a": np.array([1.0, 3, 2, 4]), "b": np.array([-1.0, -2, -3])}
    by_key = agreement.spearman_by_key(x, y)  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert by_key == pytest.approx({"a": 1 - 6 * 2 / 60, "b": -1})
    assert agreement.spearman(x, y) == pytest.approx((0.8 - 1) / 2)
    mapped = {key: np.exp(3 * values) for key, values in x.items()}
    assert agreement.spearman(x, mapped) == pytest.approx(1)


def test_kendall_by_hand_and_under_monotone_maps():
    x = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([1.0, 2, 3])}
    y = {"a": np.array([1.0, 3, 2, 4]), "b": np.array([-1.0, -2, -3])}
    assert agreement.kendall_by_key(x, y) == pytest.approx({"a": (5 - 1) / 6, "b": -1})
    assert agreement.kendall(x, y) == pytest.approx((4 / 6 - 1) / 2)
    assert agreement.kendall(x, {key: np.exp(3 * values) for key, values in x.items()}) == pytest.approx(1)
    rng = np.random.default_rng(0)
    assert abs(agreement.kendall({"a": rng.normal(size=2000)}, {"a": rng.normal(size=2000)})) < 4 * 2 / 3 / 2000**0.5


@pytest.mark.parametrize("correlation", [agreement.spearman, agreement.kendall])
def test_correlation_of_constant_or_missing_scores_is_an_error(correlation):
    with pytest.raises(StudyError, match="scores of 'a' are all equal"):
        correlation({"a": [1.0, 1.0]}, {"a": [1.0, 2.0]})
    with pytest.raises(StudyError, match="needs scores under at least one key"):
        correlation({}, {})


def test_margin_by_hand():
    scores = {"a": [4.0, 1.0, 2.0, 3.0], "b": [1.0, 1.0, 5.0], "c": [1.0, 2.0], "d": [0.0, 0.0, 1.0]}
    margins = agreement.cut_margin(scores, {"a": 2, "b": 1, "c": 0, "d": 2})
    assert margins == pytest.approx({"a": 1 / 5, "b": 0, "d": 1})
    assert agreement.cut_margin({"a": [0.0, 0.0]}, {"a": 1}) == {"a": 0}
    with pytest.raises(StudyError, match="scores of 'a' are negative"):
        agreement.cut_margin({"a": [-1.0, 2.0]}, {"a": 1})


def test_no_smaller_relative_change_than_the_margin_moves_the_cut():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.exponential(size=12)
        (margin,) = agreement.cut_margin({"a": values}, {"a": 4}).values()
        gone = set(np.argsort(values)[:4])
        for _ in range(20):
            changed = values * (1 + 0.999 * margin * rng.choice((-1, 1), size=12))
            assert set(np.argsort(changed)[:4]) == gone
        worst = values * np.where(np.isin(np.arange(12), list(gone)), 1 + 1.001 * margin, 1 - 1.001 * margin)
        assert set(np.argsort(worst)[:4]) != gone


def test_instability_by_hand():
    assert agreement.instability(0.5, 0.4) == pytest.approx(0.2)
    assert agreement.instability(0.4, 0.4) == 0 and agreement.instability(0.4, 0.5) == pytest.approx(-0.25)
    for before, after in ((0.0, 0.1), (1.5, 0.1), (0.5, -0.1), (float("nan"), 0.5)):
        with pytest.raises(StudyError, match="instability needs accuracies"):
            agreement.instability(before, after)


def test_relative_change_by_hand():
    x = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    y = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([4.0])}
    assert agreement.relative_change(x, y) == pytest.approx(1 / 5)
    assert agreement.relative_change(x, x) == 0
    doubled = {key: 2 * values for key, values in x.items()}
    assert agreement.relative_change(x, doubled) == pytest.approx(1)


def test_relative_change_survives_scores_whose_squares_underflow_in_fp32():
    x, y = {"a": np.float32([1e-25])}, {"a": np.float32([3e-25])}
    assert agreement.relative_change(x, y) == pytest.approx(2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: agreement.jaccard(A, {"layers.0.mlp": []}),
        lambda: agreement.chance_corrected_overlap(A, B, {"layers.0.mlp": 6}),
        lambda: agreement.expected_jaccard({"layers.1.mlp": 1}, {}),
        lambda: agreement.relative_change({"layers.1.mlp": [1.0]}, {}),
    ],
)
def test_different_keys_are_named(call):
    with pytest.raises(StudyError, match="only one side has layers.1.mlp"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: agreement.jaccard({"m": [True, False]}, {"m": [0]}), "integer indices, not bool"),
        (lambda: agreement.jaccard({"m": [0.5]}, {"m": [0]}), "integer indices, not float64"),
        (lambda: agreement.jaccard({"m": [[0, 1]]}, {"m": [0]}), "1-D array"),
        (lambda: agreement.jaccard({"m": [1, 1]}, {"m": [0]}), "distinct indices"),
        (lambda: agreement.overlap({"m": [-1]}, {"m": [0]}), "distinct indices from 0"),
        (lambda: agreement.chance_corrected_overlap({"m": [4]}, {"m": [0]}, {"m": 4}), "removes unit 4"),
        (lambda: agreement.expected_jaccard({"m": 5}, {"m": 4}), "cannot remove 5 units of 'm'"),
        (lambda: agreement.expected_jaccard({"m": -1}, {"m": 4}), "cannot remove -1 units"),
        (lambda: agreement.spearman({"m": [1, 1]}, {"m": [1, 2]}), "scores of 'm' are all equal"),
        (lambda: agreement.spearman({}, {}), "at least one key"),
        (lambda: agreement.spearman({"m": [1, np.nan]}, {"m": [1, 2]}), "NaN"),
        (lambda: agreement.spearman({"m": [1, 2, 3]}, {"m": [1, 2]}), "one length"),
        (lambda: agreement.relative_change({"m": [0.0]}, {"m": [1.0]}), "all zero"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(StudyError, match=message):
        call()
