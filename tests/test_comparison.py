"""Pipelines remove the same share, are what their parts make, and are measured once."""

import copy

import pytest
import torch
from helpers.tiny import tiny_folder

from mpstudy import comparison
from mpstudy.comparison import Comparison, parse
from mpstudy.errors import StudyError
from mpstudy.evaluation import cost, perplexity
from mpstudy.inputs import corpora, models
from mpstudy.pruners import PRUNERS
from mpstudy.repair import repair
from mpstudy.structure import families

SENTENCES = [f"On day {day} the people said that {day} times {day} is {day * day}." for day in range(60)]
SEARCHES = {"policy-gradient": {"steps": 3}, "evolution": {"generations": 1, "population": 4, "parents": 1}}
SEARCHES["evolution"] |= {"mutations": 1, "crossovers": 1}
SHARE = 0.3


@pytest.fixture(autouse=True)
def texts(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    documents = {"sotu-early": SENTENCES[:20], "sotu-late": SENTENCES[20:40], "wiki": SENTENCES[40:]}
    monkeypatch.setattr(corpora, "load_texts", lambda name, local=None: documents[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"num_hidden_layers": 10, "intermediate_size": 48, "num_key_value_heads": 4}
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", **sizes)


@pytest.fixture
def study(folder):
    data = {"calibration": "sotu-early", "samples": 4, "length": 24}
    sizes = {"corpora": ["sotu-late", "wiki"], "window": 32, "windows": 4}
    return Comparison(model_name=folder, layers="4-7", settings=SEARCHES, **data, **sizes)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("tailor", "unknown structured method 'tailor'"),
        ("taylor + glue", "unknown repair 'glue'"),
        ("block-ppl + bias", "a repair makes up for heads and channels, which block-ppl does not remove"),
        ("slicegpt + admm", "a repair makes up for heads and channels, which slicegpt does not remove"),
    ],
)
def test_what_is_no_pipeline_is_one_line(pipeline, message):
    with pytest.raises(StudyError, match=message):
        parse(pipeline)


def test_a_pipeline_is_a_method_and_a_repair():
    assert parse("taylor") == ("taylor", "none") and parse("flap + bias") == ("flap", "bias")


@pytest.mark.parametrize("method", [*PRUNERS])
def test_every_pruner_takes_part_by_its_name_and_meets_the_share(study, method):
    made = study.make(method, SHARE, 0)
    gone = cost.parameter_count(study.model) - cost.parameter_count(made.model)
    largest = max(study.sizes.values())  # what one unit more or less may be
    assert abs(gone - SHARE * study.prunable) <= largest / 2 + 1
    assert made.seconds > 0 and made.rows == []
    assert torch.isfinite(made.model(study.texts["wiki"]).logits).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_nearest_number_of_blocks_goes(study, share):
    plan = study.plan_of("block-influence", share, 0)
    of_block = cost.parameter_count(families.layers(study.model)[0])
    gone = len(plan.removed["blocks"])
    assert abs(gone * of_block - share * study.prunable) <= of_block / 2
    made = study.make("block-influence", share, 0)
    assert made.model.config.num_hidden_layers == 10 - gone


def test_slicing_leaves_the_number_of_parameters_that_is_nearest(study):
    wanted = cost.parameter_count(study.model) - SHARE * study.prunable
    kept = cost.parameter_count(study.make(comparison.SLICED, SHARE, 0).model)
    hidden = study.model.config.hidden_size
    others = [comparison.slice_model(study.model, study.batches(0), 1 - size / hidden) for size in (8, 16, 24, 32)]
    assert abs(kept - wanted) == min(abs(cost.parameter_count(each) - wanted) for each in others)


def test_a_pipeline_is_what_its_parts_make(study):
    plan = study.plan(study.scores("taylor", sample=1), SHARE)
    expected = copy.deepcopy(study.model)
    rows = repair(expected, plan, study.batches(1), method="least-squares")
    made = study.make("taylor + least-squares", SHARE, 1)
    for name, value in expected.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], value)
    assert [row["after"] for row in made.rows] == [row["after"] for row in rows]
    plain = study.make("taylor", SHARE, 1).model
    assert not torch.equal(plain(study.texts["wiki"]).logits, made.model(study.texts["wiki"]).logits)


def test_scores_of_a_share_are_given_it_and_a_search_its_settings(study):
    meta = study.scores_of("wanda-sp", SHARE, 0).meta
    assert (meta["ratio"], meta["of"]) == (SHARE, "parameters")
    assert study.scores_of("policy-gradient", SHARE, 0).meta["steps"] == 3


def test_a_measured_pipeline_tells_what_its_model_is_and_is_computed_once(study, monkeypatch):
    found = study.measured_pipeline("taylor + bias", SHARE, 0)
    made = study.make("taylor + bias", SHARE, 0)
    kept, whole = cost.parameter_count(made.model), cost.parameter_count(study.model)
    assert found["parameters"] == kept and found["removed_model"] == pytest.approx(1 - kept / whole)
    assert found["macs"] == cost.macs(made.model)
    assert found["error_after"] == pytest.approx(sum(row["after"] for row in made.rows) / len(made.rows))
    for name, windows in study.texts.items():
        assert found["perplexity"][name]["nll"] == perplexity.perplexity(made.model, windows)["nll"]
    monkeypatch.setattr(Comparison, "make", lambda *_: pytest.fail("made again"))
    assert study.measured_pipeline("taylor + bias", SHARE, 0) == found
    other = study.calibrated(samples=2)
    with pytest.raises(pytest.fail.Exception, match="made again"):
        other.measured_pipeline("taylor + bias", SHARE, 0)


def test_what_has_no_units_has_no_plan(study):
    with pytest.raises(StudyError, match="slicegpt removes directions, which have no scores"):
        study.plan_of("slicegpt", SHARE, 0)
