"""Strict parameters and profiles."""

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.errors import StudyError
from mpstudy.runner.profiles import (
    load_profile,
    merge_parameters,
    notebook_parameters,
    parse_seeds,
    quick_part,
    validate,
    with_seeds,
)
from mpstudy.runner.values import parse_yaml


@pytest.fixture
def study(tmp_path):
    """A profile of two runs; the second needs the first."""
    made = TinyStudy(tmp_path)
    made.notebook("write", "seeds = [0, 1, 2]\npower = 2.0\nname = 'a'\nflag = False", "pass")
    made.notebook("read", "power = 1", "pass")
    made.profile([made.run("write"), made.run("read", needs=["write"])])
    return made


def test_defaults_are_read_without_executing_the_notebook(study):
    defaults = {"seeds": [0, 1, 2], "power": 2.0, "name": "a", "flag": False}
    assert notebook_parameters(study.notebooks / "write.ipynb") == defaults


def test_an_int_may_stand_for_a_float(study):
    merged = merge_parameters(study.notebooks / "write.ipynb", {"power": 3})
    assert merged["power"] == 3.0 and isinstance(merged["power"], float)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"pwer": 2.0}, ["pwer", "flag, name, power, seeds"]),
        ({"power": "2"}, ["power", "float", "str"]),
        ({"power": True}, ["power", "bool"]),
        ({"power": float("nan")}, ["power", "finite"]),
        ({"flag": 1}, ["flag", "bool", "int"]),
        ({"seeds": 3}, ["seeds", "list"]),
        ({"seeds": [1, "2"]}, ["element 1", "seeds"]),
        ({"seeds": []}, ["seeds", "at least one element"]),
        ({"seeds": [1, 1]}, ["seeds", "twice"]),
        ({"name": None}, ["name", "NoneType"]),
    ],
)
def test_bad_parameters_are_named(study, overrides, words):
    with pytest.raises(StudyError) as caught:
        merge_parameters(study.notebooks / "write.ipynb", overrides)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("source", ["a = 1 + x", "import os", "a, b = 1, 2", "a = f()"])
def test_a_parameters_cell_holds_literals_only(study, source):
    study.notebook("odd", source, "pass")
    with pytest.raises(StudyError, match="odd.ipynb, parameters cell, line 1"):
        notebook_parameters(study.notebooks / "odd.ipynb")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"thread": 2}, "unknown key in profile tiny 'thread'"),
        ({"threads": "two"}, "threads in profile tiny must be a whole number of at least 1, not 'two'"),
        ({"threads": 0}, "threads in profile tiny must be a whole number of at least 1, not 0"),
        ({"disk_gb": -1}, "disk_gb in profile tiny must be a finite number >= 0, not -1"),
        ({"runs": []}, r"runs in profile tiny must be a list with at least one entry, not \[\]"),
        ({"runs": [{"name": "x", "notebook": "write"}]}, "minutes is missing"),
        (
            {"runs": [{"name": "x", "notebook": "writ", "minutes": 1}]},
            "unknown notebook 'writ'; known: read, write",
        ),
        ({"runs": [{"name": "x/y", "notebook": "write", "minutes": 1}]}, "run name 'x/y'"),
        ({"runs": [{"name": "x", "notebook": "write", "minutes": 1, "needs": ["x"]}]}, "needs of x"),
        ({"tolerances": {"square": {"about": 1}}}, "tolerance of square"),
    ],
)
def test_bad_profiles_are_refused(study, change, message):
    study.profile(**{"runs": [study.run("write")]} | change)
    with pytest.raises(StudyError, match=message):
        load_profile("tiny", study.profiles)


@pytest.mark.parametrize("reading, value", [("read", ["write", "other"]), ("instability", "other")])
def test_runs_that_parameters_name_are_needed(study, reading, value):
    study.notebook("paper", f"{reading} = {value!r}", "pass")
    runs = [study.run("write"), study.run("other", notebook="write"), study.run("paper", needs=["write", "other"])]
    study.profile(runs)
    assert load_profile("tiny", study.profiles).runs[2].parameters == {reading: value}
    study.profile([*runs[:2], study.run("paper", needs=["write"])])
    with pytest.raises(
        StudyError, match=rf"run in {reading} of paper \(must be one that it needs\) 'other'; known: write"
    ):
        load_profile("tiny", study.profiles)


def test_unknown_profile_and_run_are_named(study):
    with pytest.raises(StudyError, match="unknown profile 'huge'; known: tiny"):
        study.report("huge")
    with pytest.raises(StudyError, match="unknown run 'nothing'; known: read, write"):
        study.report(only="nothing")


def test_yaml_is_that_of_its_version_1_2():
    assert parse_yaml("[1e-4, 2E3, 1.5e-2, 1., .5, -3, 0]") == [1e-4, 2000.0, 0.015, 1.0, 0.5, -3, 0]
    assert parse_yaml("[true, False, null, ~]") == [True, False, None, None]
    words = ["2:4", "1:30:00", "yes", "no", "on", "off", "1_000", "010", "0x10", "2024-01-01", "="]
    assert parse_yaml(f"[{', '.join(words)}]") == words
    assert parse_yaml("[1, true, {a: 2:4}]", as_text=True) == ["1", "true", {"a": "2:4"}]


@pytest.mark.parametrize("text", ["[1", "a: b: c", "!!int x", "!!bool x", "!!timestamp x", "[" * 3000, "9" * 5000])
def test_no_yaml_is_one_line(text):
    with pytest.raises(StudyError, match="not valid YAML: ") as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_whole_number_too_large_for_a_float_is_no_finite_number(study):
    study.notebook("radius", "rho = 0.05", "pass")
    with pytest.raises(StudyError, match="rho must be a finite number > 0"):
        merge_parameters(study.notebooks / "radius.ipynb", {"rho": 10**400})


def test_seeds_are_a_count_or_a_list(study):
    assert parse_seeds("3") == [0, 1, 2] and parse_seeds("4,7") == [4, 7]
    for text in ("0", "x", "1,1", "-2", "-1,2", "", ",", "1000000000", f"0,{2**63}"):
        with pytest.raises(StudyError, match="seeds"):
            parse_seeds(text)
    profile = load_profile("tiny", study.profiles)
    write, read = with_seeds(profile, [5, 6, 7, 8, 9, 10]).runs
    assert write.parameters["seeds"] == [5, 6, 7, 8, 9, 10] and write.minutes == pytest.approx(0.2)
    assert read == profile.runs[1]


# --- What is checked where ----------------------------------------------------------------------------------


def test_a_profile_is_loaded_without_a_look_at_what_its_parameters_mean(study):
    study.notebook("prune", "pruners = ['taylor']", "pass")
    study.profile([study.run("prune", parameters={"pruners": ["nothing"]})])
    profile = load_profile("tiny", study.profiles)
    assert profile.runs[0].parameters == {"pruners": ["nothing"]}
    with pytest.raises(StudyError, match="unknown pruner 'nothing'"):
        validate(profile.runs)
    study.profile([study.run("prune", parameters={"pruners": 1})])
    with pytest.raises(StudyError, match="'pruners' of prune must be list"):
        load_profile("tiny", study.profiles)


def test_the_quick_part_has_minutes_of_its_own():
    profile = load_profile("laptop")
    reduced = quick_part(profile)
    stated = {spec.name: spec.quick_minutes for spec in profile.runs}
    assert {spec.name: spec.minutes for spec in reduced.runs} == {spec.name: stated[spec.name] for spec in reduced.runs}
    assert sum(spec.minutes for spec in reduced.runs) < sum(spec.minutes for spec in profile.runs) / 4


@pytest.mark.slow
def test_the_bundled_profiles_have_good_parameters():
    laptop = load_profile("laptop")
    for profile in (laptop, quick_part(laptop), load_profile("full"), load_profile("smoke")):
        validate(profile.runs)


def test_the_full_profile_holds_enough_data_within_its_bounds():
    full = load_profile("full")
    assert sum(run.minutes for run in full.runs) <= 720 and max(run.minutes for run in full.runs) <= 75  # a night
    by_name = {run.name: run.parameters for run in full.runs}
    judged = ("12_does_it_matter", "20_moreau_pruning", "30_lora_recovery", "11_calibration_tokens")
    assert all(by_name[name]["windows"] * (by_name[name]["window"] - 1) >= 20_000 for name in judged)
    assert all(len(by_name[name]["seeds"]) >= 6 for name in judged)
    assert all(len(by_name[name]["seeds"]) == 10 for name in ("10_perturbation_instability", "11_calibration_tokens"))
    seen = {seed for run in load_profile("laptop").runs for seed in run.parameters.get("seeds", [])}
    assert not seen & {seed for parameters in by_name.values() for seed in parameters.get("seeds", [])}
