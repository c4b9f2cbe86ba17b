"""The file of claims: every entry is checked, and a bad one ends in one line that names it."""

import pytest
from helpers.tiny_study import TinyStudy, claim

from mpstudy.errors import StudyError
from mpstudy.runner.claims import Declared, claim_part, load_claims
from mpstudy.runner.profiles import load_profile, notebook_parameters
from mpstudy.store.paths import NOTEBOOKS

SAYS = claim("a")["says"]


@pytest.fixture
def study(tmp_path):
    """Three runs: `third` needs `read`, which needs `write` and has a quick part."""
    made = TinyStudy(tmp_path)
    made.notebook("write", "seeds = [0, 1, 2]\npower = 2.0", "pass")
    made.notebook("read", "power = 1", "pass")
    made.notebook("third", "power = 1", "pass")
    quick = {"quick": {"power": 3.0}, "quick_minutes": 0.05}
    made.profile(
        [
            made.run("write", minutes=7, **quick),
            made.run("read", minutes=8, needs=["write"]),
            made.run("third", minutes=9),
        ]
    )
    return made


def test_a_folder_without_the_file_declares_nothing(study):
    assert load_claims(study.notebooks) == Declared(study.notebooks)


def test_what_is_left_out_has_defaults(study):
    study.claims([claim("a-b")])
    (one,) = load_claims(study.notebooks).claims
    assert (one.contrast, one.part, one.difference, one.primary) == ("a-b", {}, True, True)
    assert one.margin == 0.0 and one.minutes == {"tiny": 0.1}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"id": "A b"}, "id of claim 'A b' may hold small letters and digits, joined by '-', only"),
        ({"question": "It is so."}, "question of claim 'a' must end in '?', not 'It is so.'"),
        ({"question": 3}, "question in claim 'a' must be text, not 3"),
        ({"estimand": None}, "estimand in claim 'a' must be text, not None"),
        ({"contrast": 1}, "contrast in claim 'a' must be text, not 1"),
        ({"test": "beyond"}, "test in claim 'a' must be one of above, below, equivalent, not 'beyond'"),
        ({"margin": "2 %"}, "margin in claim 'a' must be a finite number, not '2 %'"),
        ({"margin": float("inf")}, "margin in claim 'a' must be a finite number, not inf"),
        ({"test": "equivalent"}, "margin of claim 'a' must be > 0 where the test is `equivalent`, not 0.0"),
        ({"difference": 1}, "difference in claim 'a' must be true or false, not 1"),
        ({"primary": "no"}, "primary in claim 'a' must be true or false, not 'no'"),
        ({"profile": "huge"}, "minutes of claim 'a' must name its profile 'huge' and no other"),
        ({"profile": 1}, "profile in claim 'a' must be text, not 1"),
        ({"part": [1]}, "part in claim 'a' must be `key: value` lines, not [1]"),
        ({"part": {"pwer": 1}}, "unknown parameter of write 'pwer'; known: power, seeds"),
        ({"part": {"power": "2"}}, "parameter 'power' of write must be float (such as 2.0), not str ('2')"),
        ({"run": "paint"}, "unknown run of claim 'a' in profile tiny 'paint'; known: read, third, write"),
        (dict.fromkeys(["minutes", "memory_gb"], {"huge": 1}), "unknown profile in minutes of claim 'a' 'huge'"),
        ({"minutes": {"tiny": -1}}, "minutes of tiny in claim 'a' must be a finite number >= 0, not -1"),
        ({"memory_gb": {"tiny": "6"}}, "memory_gb of tiny in claim 'a' must be a finite number >= 0, not '6'"),
        ({"memory_gb": {}}, "minutes and memory_gb of claim 'a' must name the same profiles"),
        ({"says": "yes"}, "says in claim 'a' must be `key: value` lines, not 'yes'"),
        ({"says": SAYS | {"maybe": ""}}, "unknown verdict in says of claim 'a' 'maybe'; known: not resolved, "),
        ({"says": {"supported": "", "refuted": ""}}, "says of claim 'a': not resolved is missing"),
        ({"says": SAYS | {"refuted": True}}, "says of claim 'a' if refuted must be text, not True"),
        ({"says": SAYS | {"refuted": "{p}"}}, "unknown placeholder in says of claim 'a' if refuted 'p'; known: "),
        ({"says": SAYS | {"refuted": "{n:d}"}}, "says of claim 'a' if refuted: {n} takes no format"),
        ({"says": SAYS | {"refuted": "{n"}}, "says of claim 'a' if refuted: expected '}' before end of string"),
        ({"table": "contrasts"}, "unknown key in claim 'a' 'table'; known: "),
    ],
)  # fmt: skip
def test_each_bad_field_ends_in_one_line(study, changes, message):
    study.claims([claim("a") | changes])
    with pytest.raises(StudyError) as caught:
        load_claims(study.notebooks)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["id", "question", "estimand", "run", "test", "margin", "says", "minutes", "memory_gb"]
)
def test_what_must_be_declared_is_named(study, name):
    entry = claim("a")
    del entry[name]
    study.claims([entry])
    with pytest.raises(StudyError, match=f"^claim {'1' if name == 'id' else repr('a')}: {name} is missing$"):
        load_claims(study.notebooks)


def test_twelve_claims_may_be_primary_and_any_number_exploratory(study):
    study.claims([*(claim(f"p{i}") for i in range(12)), *(claim(f"e{i}", primary=False) for i in range(5))])
    assert len(load_claims(study.notebooks).claims) == 17
    study.claims([claim(f"p{i}") for i in range(13)])
    with pytest.raises(StudyError, match="at most 12 claims may be primary, not 13"):
        load_claims(study.notebooks)


@pytest.mark.parametrize(
    "claims, objections, message",
    [
        ([claim("a"), claim("a")], None, "two claims have the id 'a'"),
        ([], None, "claims in claims.yaml must be a list with at least one entry"),
        ([claim("a"), 7], None, "claim 2 must be `key: value` lines, not 7"),
        ([claim("a")], [{"objection": "No.", "claims": ["b"]}], "unknown claim in objection 1 'b'; known: a"),
        ([claim("a")], [{"objection": "No.", "claims": ["a", "a"]}], "names 'a' twice"),
        ([claim("a")], [{"claims": ["a"]}], "objection 1: objection is missing"),
        ([claim("a")], [{"objection": 2, "claims": []}], "objection in objection 1 must be text, not 2"),
    ],
)
def test_bad_lists_end_in_one_line(study, claims, objections, message):
    study.claims(claims, objections)
    with pytest.raises(StudyError) as caught:
        load_claims(study.notebooks)
    assert message in str(caught.value)


def test_an_unknown_id_lists_those_that_are_there(study):
    study.claims([claim("a"), claim("b")])
    with pytest.raises(StudyError, match="^unknown claim 'c'; known: a, b$"):
        load_claims(study.notebooks).claim("c")


def test_the_part_of_a_claim_is_its_run_with_overrides_and_the_quick_part_of_what_it_needs(study):
    study.claims([claim("a", run="read", part={"power": 5}, minutes={"tiny": 0.2})])
    part = claim_part(load_profile("tiny", study.profiles), load_claims(study.notebooks).claim("a"))
    write, read = part.runs
    assert part.name == "tiny-a" and part.memory_gb == 0.5
    assert (write.name, write.parameters["power"], write.parameters["seeds"], write.minutes) == (
        "write",
        3.0,
        [0, 1, 2],
        0.05,
    )
    assert (read.name, read.parameters, read.minutes) == ("read", {"power": 5}, 0.2)


def test_the_study_declares_its_twelve_primary_claims():
    """Loading checks every field, run and part against the notebooks as they are."""
    declared = load_claims()
    assert [one.id for one in declared.claims if one.primary] == [
        "formats-weights", "formats-arithmetic", "sample-over-formats", "table-one", "steadier-channels",
        "steadier-ranking", "steadier-per-gradient", "quality-same-data", "quality-per-gradient", "sign-error",
        "recovery", "calibration-tokens",
    ]  # fmt: skip
    assert len(declared.objections) == 7


def test_the_figure_of_the_claims_has_the_primary_ones_with_their_runs_and_margins():
    drawn = notebook_parameters(NOTEBOOKS / "40_figures_and_tables.ipynb")["primary"]
    declared = {claim.contrast: (claim.run, claim.margin) for claim in load_claims().claims if claim.primary}
    assert {name: (run, margin) for name, (run, _, _, margin) in drawn.items()} == declared
