"""Results are adopted when an exact re-run of a part confirms them, and only then."""

import json

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.errors import StudyError
from mpstudy.runner.adopt import adopt
from mpstudy.runner.profiles import load_profile
from mpstudy.runner.status import status

ROOTS = 'run.table("roots", [{"seed": seed, "root": seed ** 0.5, "seconds": 1.0} for seed in seeds])'
SAME = 'run.table("roots", [{"seed": seed, "root": pow(seed, 0.5), "seconds": 2.0} for seed in seeds])'
OTHER = 'run.table("roots", [{"seed": seed, "root": seed ** 0.5 + 1e-15 * seed, "seconds": 1.0} for seed in seeds])'
SUMS = 'run.table("sums", [{"total": float(run.frame("roots", "roots").root.sum())}])'

pytestmark = pytest.mark.slow


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


def test_code_that_computes_the_same_adopts_its_result(study, capsys):
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


def test_one_number_that_differs_in_its_last_bit_changes_nothing(study):
    study.notebook("roots", "seeds = [1, 2, 3]", OTHER)
    before = {file: file.read_bytes() for file in study.home.rglob("*") if file.is_file()}
    with pytest.raises(StudyError, match=r"roots cannot be adopted: 1 numbers differ, such as .*seed=2.*root"):
        adopted(study)
    assert {file: file.read_bytes() for file in study.home.rglob("*") if file.is_file()} == before


def test_the_part_of_earlier_code_stands_in_for_the_report(study, tmp_path):
    """The report was made elsewhere, where the last bits differ: the two codes are compared here."""
    study.reproduce(quick=True)
    earlier = (study.reports / "reproduced" / "tiny-quick").rename(tmp_path / "earlier")
    result = study.result("roots")
    result["tables"]["roots"]["rows"][1]["root"] += 1e-12
    (study.home / "results" / "roots.json").write_text(json.dumps(result))
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    with pytest.raises(StudyError, match="1 numbers differ"):
        adopted(study)
    assert adopted(study, against=earlier) == ["roots"]
    assert study.result("roots")["adopted"][0]["checked"]["against"]["report"] == "tiny-quick"
    with pytest.raises(StudyError, match="holds no result of roots"):
        study.notebook("roots", "seeds = [1, 2, 3]", ROOTS)
        adopted(study, against=tmp_path / "nowhere")


def test_other_parameters_or_versions_are_no_case_for_adoption(study):
    study.notebook("roots", "seeds = [1, 2]", ROOTS)
    with pytest.raises(StudyError, match="roots cannot be adopted: parameters"):
        adopted(study)
    study.notebook("roots", "seeds = [1, 2, 3]", SAME)
    result = study.result("roots")
    result["provenance"]["packages"] = {"pandas": "0.1"}
    (study.home / "results" / "roots.json").write_text(json.dumps(result))
    study.notebook("roots", "seeds = [1, 2, 3]", "import pandas\npandas.DataFrame()\n" + SAME)
    with pytest.raises(StudyError, match="roots cannot be adopted: version of pandas: '0.1' then"):
        adopted(study)
