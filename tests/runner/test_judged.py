"""Verdicts from recorded contrasts. With two degrees of freedom Student's two-sided p is 1 - t / sqrt(t^2 + 2)."""

import json
import math
import shutil
from dataclasses import replace

import pytest
from helpers.tiny_study import TinyStudy, claim, contrast

from mpstudy.errors import StudyError
from mpstudy.runner.claims import load_claims
from mpstudy.runner.judged import both_sides, judged, stale_claims
from mpstudy.runner.profiles import load_profile
from mpstudy.stats import Estimate, judge


def p_of(t: float) -> float:
    return 1 - t / math.sqrt(t**2 + 2)


@pytest.fixture
def study(tmp_path):
    made = TinyStudy(tmp_path)
    made.notebook("write", "seeds = [0, 1, 2]", "pass")
    made.profile([made.run("write")])
    return made


def verdicts(study, claims, *rows) -> dict:
    study.claims(claims)
    study.results("write", *rows)
    return {one.claim.id: one for one in judged(load_claims(study.notebooks), study.home)}


@pytest.mark.parametrize(
    "test, margin, estimate, verdict, p",
    [
        ("above", 1, 21, "supported", p_of(40)),
        ("above", 1, -19, "refuted", p_of(40)),
        ("above", 1, 1.5, "not resolved", p_of(1)),
        ("below", 2, -18, "supported", p_of(40)),
        ("below", 2, 22, "refuted", p_of(40)),
        ("equivalent", 10, 0, "supported", p_of(20) / 2),  # two one-sided tests, t = 10 / 0.5
        ("equivalent", 10, 9, "not resolved", p_of(2) / 2),
        ("equivalent", 10, -30, "refuted", p_of(40)),
    ],
)
def test_each_test_has_its_verdicts(study, test, margin, estimate, verdict, p):
    one = verdicts(study, [claim("a", test=test, margin=margin)], contrast("a", estimate))["a"]
    assert one.verdict == verdict and one.p == pytest.approx(p) and one.p_holm == one.p
    assert one.detectable == pytest.approx((4.302653 + 1.060660) * 0.5, abs=1e-5)  # t of 97.5 % and of 80 %


@pytest.mark.parametrize("test, margin", [("below", 0.9), ("above", 0.2), ("equivalent", 0.8)])
def test_an_estimate_on_the_log_scale_is_judged_on_it(study, test, margin):
    estimate = Estimate(0.4, 0.1, 5, 6).on_log_scale()
    row = json.loads(json.dumps(estimate.contrast("a", "points")))  # as a report keeps it
    one = verdicts(study, [claim("a", test=test, margin=margin)], row)["a"]
    (expected,) = judge([(estimate, test, margin)])
    (linear,) = judge([(replace(estimate, log=False), test, margin)])
    assert (one.verdict, one.p) == (expected.verdict, expected.p) and abs(expected.p - linear.p) > 1e-3


def test_primary_claims_share_their_error_and_exploratory_ones_do_not(study):
    rows = contrast("a", 3.0), contrast("b", 0.0), contrast("c", 3.0)  # t = 6: p = 0.0267
    found = verdicts(study, [claim("a"), claim("b"), claim("c", primary=False)], *rows)
    assert found["a"].p == found["c"].p == pytest.approx(p_of(6)) and p_of(6) < 0.05 < 2 * p_of(6)
    assert found["a"].p_holm == pytest.approx(2 * p_of(6)) and found["a"].verdict == "not resolved"
    assert found["c"].p_holm is None and found["c"].label == "supported (exploratory)"


def test_a_claim_may_name_another_row(study):
    assert verdicts(study, [claim("a", contrast="z")], contrast("z", 30))["a"].verdict == "supported"


def test_the_sentence_of_the_verdict_is_filled_with_rounded_numbers(study):
    row = contrast("b", 2.0) | {"unit": "% of units"}
    found = verdicts(study, [claim("a"), claim("b", margin=1.5, difference=False)], contrast("a", 30.126), row)
    assert found["a"].sentence == "Yes: +30.1 [+28.0, +32.3] points, n = 3."
    assert found["b"].sentence == "Not resolved: 2.00, detectable 2.68."
    assert found["b"].line() == ["b", "not resolved", "2.00 [−0.151, 4.15] % of units", "> 1.5 %", "3", "0.423", "2.68"]
    assert found["a"].line()[-1] == "", "what is detectable is told of an unresolved claim only"


def test_what_cannot_be_computed_says_why(study):
    study.claims([claim("a"), claim("b"), claim("c"), claim("d")])
    assert {one.why for one in judged(load_claims(study.notebooks), study.home)} == {
        "no result of write in the report tiny"
    }
    found = verdicts(study, [claim("a"), claim("b"), claim("c")], contrast("a", 30), contrast("b", 1.0, se=None))
    assert found["a"].p_holm == found["a"].p, "the family is what is computed"
    assert found["b"].sentence == "Not computed: the contrast b has no standard error (n = 3)."
    assert found["c"].why == "write has recorded no contrast c" and found["c"].verdict == "not computed"
    assert found["c"].line() == ["c", "not computed", "–", "> 0", "–", "–", ""]
    json = found["c"].as_json()
    assert json["estimate"] is json["p"] is json["detectable"] is None and json["primary"] is True


def test_a_result_without_the_table_is_not_computed(study):
    study.claims([claim("a")])
    study.results("write")
    assert judged(load_claims(study.notebooks), study.home)[0].why == "write has recorded no contrast a"


def test_a_stale_result_does_not_count(study):
    study.claims([claim("a")])
    study.results("write", contrast("a", 30))
    (study.home / "results" / "other.json").write_text("{}")
    declared = load_claims(study.notebooks)
    stale = stale_claims(declared, load_profile("tiny", study.profiles), study.home)
    why = "write is stale (recorded before results kept what they depend on)"
    assert stale == {"a": why}
    assert judged(declared, study.home, stale)[0].sentence == f"Not computed: {why}."


@pytest.mark.parametrize(
    "rows, message",
    [
        ([contrast("a", 1), contrast("a", 2)], "write, table contrasts: 2 rows are named 'a'"),
        ([{"contrast": "a", "estimate": 1.0}], "write, table contrasts: column df, high, items, low, n, se, "),
    ],
)
def test_a_bad_table_is_named(study, rows, message):
    with pytest.raises(StudyError, match=message):
        verdicts(study, [claim("a")], *rows)


def test_a_reproduced_contrast_is_judged_in_the_family_of_the_report(study, tmp_path):
    other = TinyStudy(tmp_path / "other")
    study.claims([claim("a"), claim("b")])
    study.results("write", contrast("a", 30), contrast("b", 0))
    other.results("write", contrast("a", 3))
    declared = load_claims(study.notebooks)
    old, new = both_sides(declared, declared.claim("a"), study.home, other.home)
    assert old.verdict == "supported" and old.p_holm == pytest.approx(2 * p_of(60))
    assert new.verdict == "not resolved" and new.p_holm == pytest.approx(2 * p_of(6))


# --- A claim on another profile --------------------------------------------------------------------------------


@pytest.fixture
def other_family(study):
    """A second profile with the same run; claim ``b`` is read from its report, ``a`` from the one that is judged."""
    shutil.copy(study.profiles / "tiny.yaml", study.profiles / "other.yaml")
    cost = {"minutes": {"other": 1}, "memory_gb": {"other": 1}}
    study.claims([claim("a"), claim("b", contrast="a", profile="other", primary=False, **cost)])
    study.results("write", contrast("a", 30))
    return study


def test_a_claim_with_a_profile_is_read_from_the_report_of_that(other_family):
    declared = load_claims(other_family.notebooks)
    here, there = judged(declared, other_family.home)
    assert here.verdict == "supported" and there.why == "no result of write in the report other"
    other_family.results("write", contrast("a", -30), report="other")
    here, there = judged(declared, other_family.home)
    assert (here.verdict, there.verdict, there.row["estimate"]) == ("supported", "refuted", -30)
    assert set(stale_claims(declared, load_profile("tiny", other_family.profiles), other_family.home)) == {"a", "b"}
    (other_family.reports / "other/results/write.json").unlink()
    assert set(stale_claims(declared, load_profile("tiny", other_family.profiles), other_family.home)) == {"a"}


def test_the_report_of_its_profile_is_judged_by_it_alone(other_family):
    other_family.results("write", contrast("a", -30), report="other")
    declared, reports = load_claims(other_family.notebooks), other_family.reports
    (only,) = judged(declared, reports / "other")
    assert only.claim.id == "b" and only.verdict == "refuted"
    other_family.results("write", contrast("a", 20), report="reproduced/other-b")
    (again,) = judged(declared, reports / "reproduced/other-b")
    assert again.claim.id == "b" and again.row["estimate"] == 20
    assert declared.of("tiny") is declared and declared.of("others") is declared


def test_its_reproduction_is_compared_with_the_report_of_its_profile(other_family):
    other_family.results("write", contrast("a", -30), report="other")
    other_family.results("write", contrast("a", 20), report="reproduced/other-b")
    declared, reports = load_claims(other_family.notebooks), other_family.reports
    old, new = both_sides(declared, declared.claim("b"), reports / "other", reports / "reproduced/other-b")
    assert (old.row["estimate"], new.row["estimate"]) == (-30, 20)
