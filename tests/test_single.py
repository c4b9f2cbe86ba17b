"""Treatments are what their parts make, and are measured once."""

import copy

import pytest
import torch
from helpers.models import bits, same_bits
from helpers.tiny import tiny_folder

from mpstudy import single
from mpstudy.errors import StudyError
from mpstudy.evaluation import perplexity
from mpstudy.inputs import corpora, models
from mpstudy.single import SingleWeights, Treatment, share_of, traded, zeros_of
from mpstudy.sparse import METHODS
from mpstudy.sparse.barber import rebuild
from mpstudy.sparse.importance import ELEMENTWISE
from mpstudy.sparse.masks import Target
from mpstudy.sparse.sequential import prune_layers
from mpstudy.stability import overlap
from mpstudy.stability.perturb import perturbed

SENTENCES = [f"On day {day} the people said that {day} times {day} is {day * day}." for day in range(60)]
METHOD_NAMES = [*(name for name in METHODS if name != "masked"), *ELEMENTWISE]


@pytest.fixture(autouse=True)
def texts(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.setenv("MPSTUDY_COMPUTED", str(tmp_path / "computed"))
    documents = {"sotu-early": SENTENCES[:20], "sotu-late": SENTENCES[20:40], "wiki": SENTENCES[40:]}
    monkeypatch.setattr(corpora, "load_texts", lambda name, local=None: documents[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=3, intermediate_size=48)


@pytest.fixture
def study(folder):
    data = {"calibration": "sotu-early", "samples": 4, "length": 24}
    sizes = {"corpora": ["sotu-late", "wiki"], "window": 32, "windows": 4}
    options = {"settings": {"moreau": {"rho": 0.1}}, "held_out": "wiki"}
    return SingleWeights(model_name=folder, layers="1-2", **data, **sizes, **options)


def test_a_treatment_is_a_method_and_what_follows_it():
    assert Treatment.parse("wanda") == Treatment("wanda", "none", None)
    assert (
        Treatment.parse("moreau + admm") == Treatment("moreau", "admm") and Treatment.parse("moreau").kind == "masked"
    )
    assert Treatment.parse("magnitude + block") == Treatment("magnitude", "none", "block")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("obs", "unknown method of single weights 'obs'"),
        ("masked", "unknown method of single weights 'masked'"),
        ("wanda + glue", "unknown update or scope 'glue'; known: admm, block, column, exact, matrix, row"),
        ("wanda + none", "unknown update or scope 'none'"),
    ],
)
def test_what_is_no_treatment_is_one_line(text, message):
    with pytest.raises(StudyError, match=message):
        Treatment.parse(text)


def test_a_pattern_is_rebuilt_in_its_rows(study):
    with pytest.raises(StudyError, match="masks of n:m are rebuilt in their rows"):
        study.treat("wanda + block", "2:4", 0)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_takes_part_by_its_name(study, method):
    before = bits(study.model)
    made = study.treat(method, "2:4", 0)
    assert same_bits(study.model, before) and made.seconds > 0
    assert share_of(zeros_of(made.model, study.dense)) == 0.5
    assert not any("layers.0." in name for name in study.dense) and len(study.dense) == 14


@pytest.mark.parametrize("follows", ["admm", "row"])
def test_a_treated_model_is_that_of_the_library(study, follows):
    expected = copy.deepcopy(study.model)
    update = follows if follows == "admm" else "none"
    prune_layers(expected, study.batches(1), "1-2", "wanda", Target(0.5), update=update)
    if follows == "row":
        rebuild(expected, study.dense, study.batches(1), "1-2", "row", Target(0.5))
    assert same_bits(study.treat(f"wanda + {follows}", 0.5, 1).model, bits(expected))


def test_a_treatment_is_measured_once(study, monkeypatch):
    found = study.measured_treatment("sparsegpt", "0.5", 0)
    made = study.treat("sparsegpt", "0.5", 0).model
    for name, windows in study.texts.items():
        assert found["perplexity"][name]["nll"] == perplexity.perplexity(made, windows)["nll"]
    assert found["zeros"] == pytest.approx(0.5, abs=0.01)
    rows = prune_layers(copy.deepcopy(study.model), study.batches(0), "1-2", "sparsegpt", Target(0.5))
    assert [row["linear"] for row in found["errors"]] == [row["linear"] for row in rows]
    assert [row["in_sample"] for row in found["errors"]] == pytest.approx([row["error"] for row in rows], rel=1e-3)
    assert all(0 < row["out_of_sample"] < 2 for row in found["errors"])
    assert [row["out_of_sample"] for row in found["errors"]] != [row["in_sample"] for row in found["errors"]]
    monkeypatch.setattr(single, "prune_layers", None)  # nothing is pruned again
    assert study.measured_treatment("sparsegpt", 0.5, 0) == found


def test_a_mask_is_that_of_the_model_as_it_is(study):
    plain = study.zeros("wanda", 0.5, 0)
    with perturbed("noise-1e-1", study.model, 0):
        noisy = study.zeros("wanda", 0.5, 0)
    assert 0 < traded(plain, noisy) < 0.5 and traded(plain, study.zeros("wanda", 0.5, 0)) == 0


def test_what_trades_places_is_one_minus_the_overlap():
    generator = torch.Generator().manual_seed(0)
    one, other = ({name: torch.rand(6, 5, generator=generator) < 0.4 for name in "ab"} for _ in range(2))
    indices = [
        {name: zeros.flatten().nonzero().flatten().tolist() for name, zeros in mask.items()} for mask in (one, other)
    ]
    assert traded(one, other) == pytest.approx(1 - overlap(*indices))
    nothing = {"a": torch.zeros(2, 2, dtype=torch.bool)}
    assert traded(nothing, nothing) == 0.0 and share_of(one) == sum(int(z.sum()) for z in one.values()) / 60
