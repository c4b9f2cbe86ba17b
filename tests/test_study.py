"""A study computes each thing once for what it depends on, and never changes its model."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
from helpers.tiny import BYTES, bos_tokenizer, tiny_folder, tiny_model

from mpstudy import pruners
from mpstudy.errors import StudyError
from mpstudy.evaluation import perplexity, zeroshot
from mpstudy.inputs import corpora, models
from mpstudy.recovery import examples, lora
from mpstudy.recovery.recipe import Recipe
from mpstudy.repair import layers
from mpstudy.sparse import sequential
from mpstudy.stability import perturb
from mpstudy.store import cache, digests
from mpstudy.study import Study

SENTENCES = [f"On day {day} the people said that {day} times {day} is {day * day}." for day in range(60)]
RECIPE = Recipe(r=2, lr=1e-2, epochs=1, batch_size=4, warmup_steps=1)


@pytest.fixture(autouse=True)
def texts(monkeypatch, tmp_path):
    """Short documents in place of the bundled ones, an empty cache, and the CPU for bits that can be compared."""
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    documents = {"sotu-early": SENTENCES[:20], "sotu-late": SENTENCES[20:40], "wiki": SENTENCES[40:]}
    monkeypatch.setattr(corpora, "load_texts", lambda name, local=None: documents[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=3)


def make(folder, **changes) -> Study:
    settings = {"samples": 3, "length": 24, "corpora": ["sotu-late", "wiki"], "window": 32, "windows": 4}
    return Study(**{"model_name": folder, "layers": "1-2", "calibration": "sotu-early"} | settings | changes)


@pytest.fixture
def study(folder):
    return make(folder)


@pytest.fixture
def calls(monkeypatch):
    """Counts of what is really computed."""
    counts = dict.fromkeys(("score", "perplexity", "train_adapter", "evaluate_tasks"), 0)

    def count(module, name):
        function = getattr(module, name)

        @functools.wraps(function)
        def counted(*arguments, **more):
            counts[name] += 1
            return function(*arguments, **more)

        monkeypatch.setattr(module, name, counted)

    count(pruners, "score")
    count(perplexity, "perplexity")
    count(lora, "train_adapter")
    count(zeroshot, "evaluate_tasks")
    return counts


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_pieces_have_the_sizes_asked_for(study):
    (batch,) = study.batches(0)
    assert batch.shape == (3, 24) and batch.dtype == torch.int64
    assert {name: tuple(windows.shape) for name, windows in study.texts.items()} == {
        "sotu-late": (4, 32),
        "wiki": (4, 32),
    }
    assert study.predicted == 4 * 31
    assert list(study.units.counts) == ["layers.1.attention", "layers.1.mlp", "layers.2.attention", "layers.2.mlp"]


def test_a_sample_is_drawn_from_its_seed(study):
    assert torch.equal(study.batches(1)[0], study.batches(1)[0])
    assert not torch.equal(study.batches(1)[0], study.batches(2)[0])


def test_scores_are_those_of_the_pruner(study):
    found = study.scores("taylor", sample=1)
    direct = pruners.score("taylor", study.model, study.batches(1), study.units)
    assert same(found.values, direct.values)
    assert found.meta.items() >= direct.meta.items()


def test_scores_are_computed_once_for_the_same_content(study, folder, calls):
    first = study.scores("taylor", sample=1)
    assert same(first.values, study.scores("taylor", sample=1).values)
    assert same(first.values, make(folder).scores("taylor", sample=1).values)
    assert calls["score"] == 1
    study.scores("smoothgrad", sample=1, steps=2)
    study.scores("smoothgrad", sample=1, steps=2, sigma=0.05)  # the default, written out
    assert calls["score"] == 2


@pytest.mark.parametrize(
    "other", [{"sample": 2}, {"seed": 1}, {"sigma": 0.1}, {"pruner": "random"}, {"layers": "2-2"}, {"length": 20}]
)
def test_scores_are_computed_anew_for_other_content(study, folder, calls, other):
    study.scores("smoothgrad", sample=1, steps=2)
    options = {"pruner": "smoothgrad", "sample": 1} | {"steps": 2} | other
    if options["pruner"] == "random":
        del options["steps"]
    changed = {name: options.pop(name) for name in ("layers", "length") if name in options}
    make(folder, **changed).scores(options.pop("pruner"), **options)
    assert calls["score"] == 2


def test_averaged_scores_are_the_mean_of_those_of_the_parts(study, calls):
    whole = torch.cat(study.calibrated(samples=3 * study.samples).batches(1))
    parts = whole.split(study.samples)
    assert torch.equal(parts[0], torch.cat(study.batches(1)))  # the first part is the sample itself
    each = [pruners.PRUNERS["taylor"].function(study.model, [part], study.units).values for part in parts]
    found = study.averaged_scores("taylor", 3, sample=1)
    for key, values in found.values.items():
        torch.testing.assert_close(values, sum(one[key] for one in each) / 3)
    assert found.meta["gradients"] == 3 and found.meta["parts"] == 3
    study.scores("taylor", sample=1)
    assert same(study.averaged_scores("taylor", 3, sample=1).values, found.values) and calls["score"] == 3


def test_a_mean_of_scores_is_never_below_the_scores_of_the_whole(study):
    """|w a| + |w b| >= |w (a + b)|, for each weight and so for each unit."""
    whole = study.calibrated(samples=2 * study.samples).scores("taylor", sample=0).values
    mean = study.averaged_scores("taylor", 2, sample=0).values
    assert all((mean[key] >= whole[key] * (1 - 1e-5)).all() for key in whole)
    assert any((mean[key] > whole[key] * 1.01).any() for key in whole)


def test_a_perturbed_model_has_scores_of_its_own(study, calls):
    before = study.scores("taylor", sample=0)
    with perturb.perturbed("bfloat16", study.model):
        within = study.scores("taylor", sample=0)
    assert not same(before.values, within.values)
    assert same(before.values, study.scores("taylor", sample=0).values)
    assert calls["score"] == 2


def test_the_arithmetic_is_part_of_what_a_score_is_known_by(study, calls):
    with perturb.perturbed("bfloat16", study.model):
        rounded = study.scores("taylor", sample=0)
    with perturb.perturbed("bfloat16-arithmetic", study.model):  # the same weights
        within = study.scores("taylor", sample=0)
    assert calls["score"] == 2 and not same(rounded.values, within.values)


@pytest.mark.parametrize(("samples", "length", "rows"), [(10, 64, 10), (10, 256, 5), (7, 256, 1), (6, 1000, 1)])
def test_a_large_sample_comes_in_batches_of_equal_size(study, samples, length, rows, monkeypatch):
    sample = torch.arange(samples * length).view(samples, length)
    monkeypatch.setattr(corpora, "calibration_batch", lambda *_, **__: sample)
    batches = study.calibrated(samples=samples, length=length).batches(0)
    assert {tuple(batch.shape) for batch in batches} == {(rows, length)}
    assert torch.equal(torch.cat(batches), sample)


def test_another_calibration_shares_the_model(study, folder):
    other = study.calibrated(length=20, samples=3)
    assert other.model is study.model and other.batches(0)[0].shape == (3, 20)
    assert study.batches(0)[0].shape != (3, 20)
    with pytest.raises(StudyError, match="unknown calibration setting 'layers'; known: calibration, length, samples"):
        study.calibrated(layers="1-1")


@pytest.mark.parametrize("layers", ["0", "hidden"])
def test_other_layers_of_the_same_model(study, folder, layers):
    before = study.units.counts
    other = study.with_layers(layers)
    assert other.model is study.model and other.tokenizer is study.tokenizer and other.layers == layers
    assert other.units.counts == make(folder, layers=layers).units.counts != before
    assert study.layers == "1-2" and study.units.counts == before


def test_other_texts_for_the_same_model(study):
    before = study.perplexity(study.model)
    other = study.on_texts(["wiki"])
    assert other.model is study.model and list(other.texts) == ["wiki"] and list(study.texts) == ["sotu-late", "wiki"]
    assert other.perplexity(study.model)["wiki"] == before["wiki"]


def test_a_study_takes_keywords_only(folder):
    with pytest.raises(TypeError, match="positional argument"):
        Study(folder, "1-2", "sotu-early", 3, 24, ["wiki"], 32, 4)


def test_a_bad_setting_is_an_error_before_any_work(study, calls):
    with pytest.raises(StudyError, match="rho of pruner 'moreau' must be a finite number > 0, not -1.0"):
        study.scores("moreau", sample=0, rho=-1.0)
    with pytest.raises(StudyError, match="unknown pruner"):
        study.scores("wanda", sample=0)
    assert calls["score"] == 0


def test_pruning_leaves_the_studys_model_alone(study):
    before = copy.deepcopy(study.model.state_dict())
    digest = digests.weights_digest(study.model)
    plan = study.plan(study.scores("l1", sample=0), 0.5)
    pruned = study.pruned(plan)
    assert same(before, study.model.state_dict()) and digests.weights_digest(study.model) == digest
    assert digests.weights_digest(pruned) != digest
    shapes = [tuple(layer.mlp.gate_proj.weight.shape) for layer in pruned.model.layers]
    assert shapes == [(24, 32), (12, 32), (12, 32)]
    assert plan.meta == {"share": 0.5, "scope": "local", "pruner": "l1"}


def test_perplexity_is_given_by_corpus_and_computed_once(study, calls):
    found = study.perplexity(study.model)
    assert list(found) == ["sotu-late", "wiki"]
    for name, result in found.items():
        direct = perplexity.perplexity(study.model, study.texts[name])
        assert result.items() >= direct.items() and result["tokens"] == 4 * 31
        assert math.exp(result["nll"]) == result["perplexity"]
    done = calls["perplexity"]
    assert study.perplexity(copy.deepcopy(study.model)) == found and calls["perplexity"] == done
    pruned = study.pruned(study.plan(study.scores("l1", sample=0), 0.5))
    assert study.perplexity(pruned)["wiki"]["perplexity"] != found["wiki"]["perplexity"]
    assert calls["perplexity"] == done + 2


def test_windows_of_any_length_are_read_once(study, calls):
    texts = {("wiki", 62): study.texts["wiki"].reshape(2, -1)}
    found, done = study.perplexity(study.model, texts), calls["perplexity"]
    assert found["wiki", 62]["losses"] == perplexity.perplexity(study.model, texts["wiki", 62])["losses"]
    assert study.perplexity(study.model, texts) == found and calls["perplexity"] == done + 1


def test_windows_as_rows(study):
    losses = {("taylor", 3): [np.array([0.5, 1.5]), np.array([2.0])]}
    case = {"method": "taylor", "seed": 3}
    assert study.window_rows(losses, ("method", "seed")) == [
        case | {"corpus": "sotu-late", "window": 0, "nll": 0.5},
        case | {"corpus": "sotu-late", "window": 1, "nll": 1.5},
        case | {"corpus": "wiki", "window": 0, "nll": 2.0},
    ]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        study.window_rows({("taylor",): losses["taylor", 3]}, ("method", "seed"))


def test_zero_shot_is_computed_once_for_a_model_and_tokenizer(study, folder, calls):
    rows = study.zero_shot(study.model, ["agreement"], 4)
    assert [row["task"] for row in rows] == ["agreement"] and rows[0]["n_items"] == 4
    assert study.zero_shot(study.model, ["agreement"], 4) == rows and calls["evaluate_tasks"] == 1
    study.zero_shot(study.model, ["agreement"], 2)
    other = make(folder)
    other.tokenizer = models.load_tokenizer(folder)
    other.tokenizer.add_tokens(["cabinets"])
    other.zero_shot(study.model, ["agreement"], 4)
    assert calls["evaluate_tasks"] == 3


def test_recovery_is_computed_once_and_merged(study, calls, monkeypatch):
    monkeypatch.setattr(examples, "alpaca_prompt", lambda row: row["instruction"])  # short: a token is a byte here
    rows = [{"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(10)]
    pruned = study.pruned(study.plan(study.scores("l1", sample=0), 0.5))
    before, steps = digests.weights_digest(pruned), []
    first, adapter = study.recover(pruned, rows[:8], rows[8:], RECIPE, seed=0, log=steps.append)
    again, _ = study.recover(pruned, rows[:8], rows[8:], RECIPE, seed=0)
    assert calls["train_adapter"] == 1 and steps == adapter.meta["history"]
    assert digests.weights_digest(first) == digests.weights_digest(again)
    assert digests.weights_digest(pruned) == before != digests.weights_digest(first)
    study.recover(pruned, rows[:8], rows[8:], RECIPE, seed=1)
    study.recover(pruned, rows[:8][::-1], rows[8:], RECIPE, seed=0)
    study.recover(first, rows[:8], rows[8:], RECIPE, seed=0)
    assert calls["train_adapter"] == 4


@pytest.mark.slow
def test_a_divergence_reads_at_most_so_many_windows_evenly_spaced(study):
    other = tiny_model(seed=1, num_hidden_layers=3)
    windows = study.texts["wiki"]
    for most, read in ((4, windows), (3, windows[::2]), (2, windows[::2])):
        found, expected = (
            study.divergence(study.model, other, "wiki", most),
            perplexity.divergence(study.model, other, read),
        )
        assert {name: found[name] for name in expected} == expected


def test_a_study_of_bundled_texts(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    folder = tiny_folder(tmp_path / "tiny", tokenizer=False, vocab_size=49152, initializer_range=0.02)
    models.load_tokenizer("smollm2-135m-instruct").save_pretrained(folder)
    study = make(folder, layers="0-1", window=64)
    plan = study.plan(study.scores("taylor", sample=0), 0.5)
    for model in (study.model, study.pruned(plan)):
        for result in study.perplexity(model).values():
            assert result["perplexity"] == pytest.approx(49152, rel=0.2) and result["tokens"] == 4 * 63


# --- Repair ------------------------------------------------------------------------------------------------------


def test_a_plan_is_repaired_once_and_the_model_stays(study, monkeypatch):
    plan, before = study.plan(study.scores("taylor", sample=0), 0.5), digests.weights_digest(study.model)
    found = study.repair(plan, "least-squares", sample=0)
    assert [row["layer"] for row in found["rows"]] == [1, 1, 2, 2] and set(found["perplexity"]) == {"sotu-late", "wiki"}
    assert found["seconds"] > 0 and digests.weights_digest(study.model) == before
    model, rows = study.repaired(plan, "least-squares", sample=0)
    assert {name: of["losses"] for name, of in study.perplexity(model).items()} == {
        name: of["losses"] for name, of in found["perplexity"].items()
    }
    assert [row["after"] for row in rows] == [row["after"] for row in found["rows"]]
    removed, pruned = study.repaired(plan, "none", sample=0)[0].state_dict(), study.pruned(plan).state_dict()
    assert same(removed, pruned)
    monkeypatch.setattr(layers, "_repaired", None)  # nothing is repaired again
    assert study.repair(plan, "least-squares", sample=0) == found
    for changes in ({"sample": 1}, {"sample": 0, "strength": 0.5}):
        with pytest.raises(TypeError):
            study.repair(plan, "least-squares", **changes)


def test_a_repair_reads_the_calibration_of_its_study(study):
    plan = study.plan(study.scores("taylor", sample=0), 0.5)
    other = study.calibrated(calibration="wiki")
    assert study.repair(plan, "bias", sample=0)["rows"] != other.repair(plan, "bias", sample=0)["rows"]


# --- Single weights ----------------------------------------------------------------------------------------------


def test_single_weights_are_pruned_once_and_the_model_stays(study, monkeypatch):
    before = digests.weights_digest(study.model)
    found = study.sparse("wanda", 0.5, sample=0)
    assert {row["layer"] for row in found["rows"]} == {1, 2} and len(found["rows"]) == 14
    assert found["prune_seconds"] > 0 and set(found["perplexity"]) == {"sotu-late", "wiki"}
    assert digests.weights_digest(study.model) == before
    monkeypatch.setattr(sequential, "_prune", None)  # nothing is pruned again
    assert study.sparse("wanda", 0.5, sample=0) == found
    with pytest.raises(TypeError):
        study.sparse("wanda", 0.5, sample=1)


def test_masks_by_scores_take_the_pruners_settings(study):
    small, large = (study.sparse("moreau", "2:4", sample=0, rho=rho, max_steps=3) for rho in (1e-3, 1.0))
    assert small["rows"][0]["zeros"] == large["rows"][0]["zeros"] == 0.5
    assert small["perplexity"] != large["perplexity"]
    updated = study.sparse("moreau", "2:4", sample=0, rho=1e-3, max_steps=3, update="exact")
    assert updated["rows"][0]["error"] < small["rows"][0]["error"]
    with pytest.raises(StudyError, match="unknown setting"):
        study.sparse("taylor", 0.5, sample=0, rho=1.0)


def test_rows_and_losses_of_a_model_come_from_one_evaluation(study, monkeypatch):
    digests = []
    monkeypatch.setattr(cache, "model_digest", lambda model: digests.append(model) or {"weights": "one"})
    rows, losses = study.measured(study.model, pruner="none")
    assert [row["corpus"] for row in rows] == study.corpora and all(row["pruner"] == "none" for row in rows)
    for row, of_text in zip(rows, losses, strict=True):
        assert of_text.shape == (study.windows,) and of_text.mean() == pytest.approx(row["nll"])
    assert digests == [study.model]


def test_samples_and_windows_begin_with_bos_where_a_text_does(tmp_path):
    tiny_model(vocab_size=BYTES + 1, num_hidden_layers=3, max_position_embeddings=32).save_pretrained(tmp_path / "m")
    tokenizer = bos_tokenizer()
    tokenizer.save_pretrained(tmp_path / "m")
    study = make(str(tmp_path / "m"), window=31)
    (batch,) = study.batches(0)
    assert batch.shape == (3, 25) and (batch[:, 0] == tokenizer.bos_token_id).all()
    assert torch.equal(batch[:, 1:], make(tiny_folder(tmp_path / "plain", num_hidden_layers=3)).batches(0)[0])
    rows, _ = study.measured(study.model)
    assert [(row["tokens"], row["window"]) for row in rows] == [(4 * 31, 31)] * 2 and study.predicted == 4 * 31
    for work in (lambda: make(str(tmp_path / "m")).texts, lambda: make(str(tmp_path / "m"), length=32).batches(0)):
        with pytest.raises(StudyError, match="32 tokens and BOS has no room in the 32 positions of the model"):
            work()
