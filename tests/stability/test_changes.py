"""Changes before scoring do what their names say, and agreement is measured as defined."""

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_folder

from mpstudy import stability
from mpstudy.errors import StudyError
from mpstudy.inputs import corpora, models
from mpstudy.stability import perturb
from mpstudy.stability.changes import log_scores, mask_agreement, pair_agreement, scores_under
from mpstudy.stability.kinds import SIGMA, Change
from mpstudy.structure.scores import Scores
from mpstudy.study import Study

SENTENCES = [f"On day {day} the people said that {day} times {day} is {day * day}." for day in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=3)


@pytest.fixture
def study(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    monkeypatch.setattr(
        corpora, "load_texts", lambda name, local=None: SENTENCES[:30] if name == "sotu-early" else SENTENCES[30:]
    )
    settings = {"layers": "1-2", "calibration": "sotu-early", "samples": 3, "length": 24}
    return Study(model_name=folder, corpora=["wiki"], window=32, windows=4, **settings)


def same(first: Scores, second: Scores) -> bool:
    return all(torch.equal(first.values[key], second.values[key]) for key in first.values)


def test_changes_of_the_calibration(study):
    assert same(scores_under(study, "sample", "taylor", sample=0, draw=2), study.scores("taylor", sample=2))
    for change, setting in (("corpus-wiki", "calibration"), ("samples-5", "samples"), ("length-12", "length")):
        value = change.partition("-")[2]
        other = study.calibrated(**{setting: value if setting == "calibration" else int(value)})
        expected = other.scores("taylor", sample=1)
        assert same(scores_under(study, change, "taylor", sample=1), expected)
        assert not same(expected, study.scores("taylor", sample=1))


def test_changes_of_the_weights(study):
    before = study.scores("taylor", sample=0)
    with perturb.perturbed("noise-1e-2", study.model, 4):
        expected = study.scores("taylor", sample=0)
    assert same(scores_under(study, "noise-1e-2", "taylor", sample=0, draw=4), expected)
    assert not same(expected, before)
    assert same(study.scores("taylor", sample=0), before)


def test_units_that_are_gone_already_come_first(study):
    before = study.scores("taylor", sample=0)
    after = scores_under(study, "pruned-0.3", "taylor", sample=0)
    gone = study.plan(before, 0.3).mask()
    for key, values in after.values.items():
        assert set(gone[key]) <= set(np.flatnonzero(values == 0))
    assert stability.jaccard(gone, study.plan(after, 0.3).mask()) == 1


def test_settings_reach_the_pruner(study):
    found = scores_under(study, "bfloat16", "moreau", sample=0, rho=0.01, max_steps=2)
    assert found.meta["rho"] == 0.01 and found.meta["max_steps"] == 2
    first, second = (scores_under(study, "bfloat16", "random", sample=0, seed=seed) for seed in (0, 1))
    assert not same(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("int3", "unknown change 'int3'; known: bfloat16, .*pruned-SHARE"),
        *[(f"noise{sigma}", "needs a finite number > 0 after its dash") for sigma in ("", "-x", "-0", "-inf", "-nan")],
        ("bfloat16-7", "unknown change 'bfloat16-7'; known: bfloat16, .*noise-SIGMA"),
        *[
            (f"{kind}-{n}", "needs a whole number of at least 2")
            for kind in ("samples", "length")
            for n in ("x", "1", "")
        ],
        *[(f"pruned-{ratio}", r"needs a share in \(0, 1\)") for ratio in ("0", "1", "some", "nan")],
        ("corpus-brown", "unknown corpus 'brown'; known: .*sotu-early"),
        ("corpus-alpaca-demo", "unknown corpus 'alpaca-demo'"),
    ],
)
def test_an_unusable_change_is_an_error_before_any_work(study, change, message):
    with pytest.raises(StudyError, match=message):
        scores_under(study, change, "taylor", sample=0)
    assert "model" not in vars(study)


def test_agreement_of_equal_and_of_opposite_scores(study):
    scores = study.scores("taylor", sample=0)
    found = mask_agreement(study, scores, scores, 0.4)
    assert found["traded"] == found["score_change"] == 0
    for kind in ("heads", "channels"):
        assert found[f"jaccard_{kind}"] == found[f"corrected_{kind}"] == 1 and 0 < found[f"chance_{kind}"] < 1
        assert found[f"kendall_{kind}"] == pytest.approx(1)
    opposite = Scores({key: values.max() - values for key, values in scores.values.items()})
    found = mask_agreement(study, scores, opposite, 0.4)
    assert found["traded"] == 1 and found["jaccard_channels"] == 0 and found["corrected_channels"] < 0
    assert found["kendall_channels"] == pytest.approx(-1)


def test_a_kind_that_loses_nothing_has_no_index(study):
    scores = study.scores("taylor", sample=0)
    found = mask_agreement(study, scores, scores, 0.01)  # too little for a head
    assert "jaccard_heads" not in found and found["jaccard_channels"] == 1 and found["kendall_heads"] == 1


def test_a_model_with_one_head_group_a_layer_is_compared_by_its_channels(tmp_path, study):
    """Scores, plans and measures are finite, and none is of heads, since no head can go."""
    study.model_name = tiny_folder(tmp_path / "one", num_hidden_layers=3, num_key_value_heads=1)
    before, after = (study.scores("taylor", sample=seed) for seed in (0, 1))
    assert study.units["layers.1.attention"].count == 1
    for share in (0.1, 0.4):
        assert study.removed(study.plan(before, share))["heads_removed"] == 0
        assert study.removed(study.plan(before, share))["removed"] == pytest.approx(share, abs=0.02)
        found = mask_agreement(study, before, after, share)
        assert all(np.isfinite(value) for value in found.values())
        assert not [name for name in found if "heads" in name] and 0 < found["traded"] < 1


def test_every_pair_of_samples_is_compared_once(study):
    scores = {seed: study.scores("taylor", sample=seed) for seed in (4, 0, 2)}
    rows = pair_agreement(study, scores, 0.4)
    assert [(row["first"], row["second"]) for row in rows] == [(4, 0), (4, 2), (0, 2)]
    expected = mask_agreement(study, scores[4], scores[2], 0.4)
    assert {name: rows[1][name] for name in expected} == expected


def test_log_scores_are_centred_by_key():
    found = log_scores(Scores({"a": torch.tensor([1.0, np.e**2]), "b": torch.tensor([5.0])}))
    assert found["a"] == pytest.approx([-1, 1]) and found["b"] == pytest.approx([0])
    with pytest.raises(StudyError, match="scores of 'a' hold a value <= 0"):
        log_scores(Scores({"a": torch.tensor([0.0, 1.0])}))


@pytest.mark.parametrize(
    ("name", "kind", "value", "dose", "label"),
    [
        ("bfloat16", "bfloat16", "", None, "bf16"),
        ("bfloat16-arithmetic", "bfloat16-arithmetic", "", None, "bf16\narithmetic"),
        ("int8", "int8", "", None, "int8"),
        ("noise-1e-2", "noise", "1e-2", 0.01, "noise\n1e-2"),
        ("isotropic-5e-2", "isotropic", "5e-2", 0.05, "isotropic\n5e-2"),
        ("sample", "sample", "", None, "other\nsample"),
        ("samples-20", "samples", "20", 20, "samples\n20"),
        ("length-128", "length", "128", 128, "length\n128"),
        ("corpus-wiki", "corpus", "wiki", "wiki", "corpus\nwiki"),
        ("pruned-0.05", "pruned", "0.05", 0.05, "pruned\n0.05"),
    ],
)
def test_a_name_is_a_kind_and_its_value(name, kind, value, dose, label):
    change = Change.parse(name)
    assert (change.kind, change.value, change.dose, change.label) == (kind, value, dose, label)
    assert str(change) == name


def test_a_registered_name_may_hold_dashes(monkeypatch):
    monkeypatch.setattr(perturb.PERTURBATIONS, "_records", dict(perturb.PERTURBATIONS._records))
    perturb.PERTURBATIONS.register("noise-of-rows", value=SIGMA)(perturb.relative_noise)
    perturb.PERTURBATIONS.register("int8-rows")(perturb.bfloat16_arithmetic)
    assert Change.parse("noise-of-rows-1e-3") == Change("noise-of-rows", "1e-3")  # the longest name that fits
    assert Change.parse("int8-rows") == Change("int8-rows")
    assert Change.parse("int8-rows").label == "int8\nrows"
