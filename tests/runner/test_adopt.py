"""Results are adopted when an exact re-run of a part confirms them, and only then."""

import json

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.errors import StudyError
from mpstudy.runner import machine
from mpstudy.runner.adopt import adopt
from mpstudy.runner.profiles import load_profile
from mpstudy.runner.status import again_file, identities, status

ROOTS = 'run.table("roots", [{"seed": seed, "root": seed ** 0.5, "seconds": 1.0} for seed in seeds])'
SAME = 'run.table("roots", [{"seed": seed, "root": pow(seed, 0.5) + 1e-15 * seed, "seconds": 2.0} for seed in seeds])'
OTHER = 'run.table("roots", [{"seed": seed, "root": seed ** 0.5 + 1e-8 * seed, "seconds": 1.0} for seed in seeds])'
SUMS = 'run.table("sums", [{"total": float(run.frame("roots", "roots").root.sum())}])'

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def tree(monkeypatch) -> dict:
    """A working tree without uncommitted changes, whatever that of these tests is."""
    git = {"revision": "0123456789abcdef", "dirty": False}
    monkeypatch.setattr(machine, "git_revision", lambda: git)
    return git


@pytest.fixture
def study(tmp_path):
    """A finished report of two runs, of which the first has an affordable part."""
    made = TinyStudy(tmp_path)
    made.notebook("roots", "seeds = [1, 2, 3]", ROOTS)
    made.notebook("sums", "power = 1", SUMS)
    rules = {"tolerances": {"root": {"rel": 0.5}}, "timings": ["seconds"], "pooled": ["sums"]}
    made.profile([made.run("roots", quick={"seeds": [2]}), made.run("sums", needs=["roots"])], **rules)
    made.report()
    return made


def states(study) -> dict[str, str]:
    return {row["run"]: row["state"] for row in status(load_profile("tiny", study.profiles), study.home)}


def adopted(study, **more) -> list[str]:
    return adopt("tiny", reports=study.reports, folder=study.profiles, **more)


def change(study, run: str, **values) -> None:
    """Change what a result of the report holds."""
    file = study.home / "results" / f"{run}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def unexecuted(monkeypatch):
    """Whatever is refused here is refused before the part is executed."""
    monkeypatch.setattr("mpstudy.runner.adopt.run_profile", lambda *rest, **more: pytest.fail("executed"))


def test_code_that_computes_the_same_but_for_rounding_adopts_its_result(study, capsys):
    before = study.result("roots")
    assert adopted(study) == [] and "nothing to adopt" in capsys.readouterr().out
    study.notebook("roots", "seeds = [1, 2, 3]", "# Roots, said otherwise\n" + SAME)
    assert states(study) == {"roots": "stale", "sums": "stale"}
    assert adopted(study) == ["roots"]
    assert states(study) == {"roots": "current", "sums": "stale"}
    after = study.result("roots")
    assert after["tables"] == before["tables"] and after["provenance"] == before["provenance"]
    (entry,) = after["adopted"]
    assert entry["fingerprint"] == before["fingerprint"] != after["fingerprint"]
    assert entry["computed_under"] == before["provenance"]["git"]["revision"]
    assert entry["checked"]["numbers"] == 1 and entry["checked"]["part"] == {"seeds": [2]}
    assert "roots: 1 numbers of a part" in (study.home / "index.html").read_text()
    notebook = json.loads((study.home / "roots.ipynb").read_text())
    assert any("said otherwise" in "".join(cell["source"]) for cell in notebook["cells"])
    assert study.report() == ["sums"] and set(states(study).values()) == {"current"}


def test_one_number_that_differs_in_its_eighth_digit_changes_nothing(study):
    study.notebook("roots", "seeds = [1, 2, 3]", OTHER)
    before = {file: file.read_bytes() for file in study.home.rglob("*") if file.is_file()}
    with pytest.raises(StudyError, match=r"roots cannot be adopted: 1 numbers differ, such as .*seed=2.*root"):
        adopted(study)
    assert {file: file.read_bytes() for file in study.home.rglob("*") if file.is_file()} == before


def test_the_part_of_earlier_code_stands_in_for_the_report(study, tmp_path):
    """The report was made elsewhere, where the last bits differ: the two codes are compared here."""
    study.reproduce(quick=True)
    earlier = (study.reports / "reproduced" / "tiny-quick").rename(tmp_path / "earlier")
    tables = study.result("roots")["tables"]
    tables["roots"]["rows"][1]["root"] += 1e-8
    change(study, "roots", tables=tables)
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    with pytest.raises(StudyError, match="1 numbers differ"):
        adopted(study)
    assert adopted(study, against=earlier) == ["roots"]
    assert study.result("roots")["adopted"][0]["checked"]["against"]["report"] == "tiny-quick"


def test_uncommitted_code_adopts_nothing(study, tree, unexecuted):
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    tree["dirty"] = True
    with pytest.raises(StudyError, match="nothing can be adopted: code, notebooks or data have uncommitted changes"):
        adopted(study)


def test_parameters_threads_and_files_are_no_case_for_adoption(study, unexecuted):
    study.notebook("roots", "seeds = [1, 2]", ROOTS)
    with pytest.raises(StudyError, match="roots cannot be adopted: parameter: seeds changed; run it again"):
        adopted(study)
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    facts = study.result("roots")["provenance"]
    change(study, "roots", provenance=facts | {"threads": 4})
    with pytest.raises(StudyError, match="threads: it was computed with 4, not 1"):
        adopted(study)
    change(study, "roots", provenance=facts)
    again_file(study.home, "roots").touch()
    with pytest.raises(StudyError, match="roots cannot be adopted: asked for: it is to be executed again"):
        adopted(study)
    (study.home / "roots.html").unlink()
    with pytest.raises(StudyError, match="roots cannot be adopted: file: roots.html is not there"):
        adopted(study)


@pytest.mark.parametrize(
    "part, before, reason",
    [
        ("inputs", {"input wiki": "1"}, "input: input wiki is gone"),
        ("versions", {"pandas": "0.1"}, "version: pandas 0.1 is now "),
        ("device", "Some GPU", "device: Some GPU is now cpu"),
        ("instructions", {"MKL_CBWR": "COMPATIBLE"}, "instructions: MKL_CBWR COMPATIBLE is now AVX2,STRICT"),
    ],
)
def test_other_inputs_versions_and_devices_are_no_case_for_adoption(study, unexecuted, part, before, reason):
    study.notebook("roots", "seeds = [1, 2, 3]", "import pandas\npandas.DataFrame()\n" + SAME)
    change(study, "roots", identity=study.result("roots")["identity"] | {part: before})
    with pytest.raises(StudyError, match=f"roots cannot be adopted: {reason}"):
        adopted(study)


def test_a_run_that_read_other_numbers_is_no_case_for_adoption(study, unexecuted):
    study.profile([study.run("roots", quick={"seeds": [2]}), study.run("sums", needs=["roots"], quick={"power": 1})])
    study.notebook("sums", "power = 1", SUMS + "\nprint('changed')")
    tables = study.result("roots")["tables"]
    tables["roots"]["rows"][0]["root"] += 1
    change(study, "roots", tables=tables)
    with pytest.raises(StudyError, match="sums cannot be adopted: reads: roots holds other numbers than it did"):
        adopted(study)


def test_changed_code_that_the_part_does_not_reach_is_no_case_for_adoption(study, monkeypatch, unexecuted):
    """The part reaches nothing here, and of what the whole does, one definition is another than it was."""
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    known = study.result("roots")["identity"]
    change(study, "roots", identity=known | {"definitions": known["definitions"] | {"Recorder": ["0" * 16]}})
    monkeypatch.setattr(
        "mpstudy.runner.adopt.identities",
        lambda profile: {
            name: now if profile.name == "tiny" else now | {"definitions": {}}
            for name, now in identities(profile).items()
        },
    )
    with pytest.raises(StudyError, match="roots cannot be adopted: its part does not reach Recorder"):
        adopted(study)


def test_rows_of_the_part_that_the_report_lacks_are_no_case_for_adoption(study):
    """The row that has no counterpart is one that nobody checked."""
    tables = study.result("roots")["tables"]
    tables["roots"]["rows"].append(tables["roots"]["rows"].pop(1) | {"seed": 7})
    tables["more"] = {"units": {}, "rows": [{"seed": 2, "x": 1.0}]}
    change(study, "roots", tables=tables)
    more = '\nrun.table("more", [{"seed": seed, "x": 1.0} for seed in seeds])'
    study.notebook("roots", "seeds = [1, 2, 3]", SAME + more)
    message = "roots cannot be adopted: 1 numbers of its part are not in the report, such as .*seed=2 · root"
    with pytest.raises(StudyError, match=message):
        adopted(study)


def test_earlier_results_are_of_the_same_part_and_of_the_code_of_the_report(study, tmp_path, unexecuted, monkeypatch):
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    with pytest.raises(StudyError, match="holds no result of roots to compare with"):
        adopted(study, against=tmp_path)
    with pytest.raises(StudyError, match="the part is executed into .*tiny-quick; move"):
        adopted(study, against=study.reports / "reproduced/tiny-quick")
    earlier = tmp_path / "earlier"
    (earlier / "results").mkdir(parents=True)
    whole = study.result("roots")

    def refused(message: str, identity=(), **more) -> None:
        known = whole["identity"] | {"parameters": {"seeds": [2]}} | dict(identity)
        (earlier / "results/roots.json").write_text(json.dumps(whole | {"identity": known} | more))
        with pytest.raises(StudyError, match=f"roots cannot be adopted: .*{message}"):
            adopted(study, against=earlier)

    refused("in .*earlier, parameter: seeds changed", {"parameters": {"seeds": [2, 3]}})
    refused("in .*earlier, threads: 2 is now 1", {"threads": 2})
    refused("in .*earlier, threads: it was computed with 2, not 1", provenance=whole["provenance"] | {"threads": 2})
    refused("in .*earlier, device: Some GPU is now cpu", {"device": "Some GPU"})
    refused("earlier was made by other code than the report: its notebook differs", {"cells": ["1", "2"]})
    other = whole["identity"]["definitions"] | {"Recorder": ["1"]}
    refused("earlier was made by other code than the report: Recorder differs", {"definitions": other})
