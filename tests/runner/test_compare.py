"""The comparison of a new run with the committed one."""

import json

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.errors import StudyError
from mpstudy.runner.compare import compare, verify

ROWS = [
    {"method": "l1", "ratio": 0.2, "seed": 0, "ppl": 20.0, "seconds": 3.0},
    {"method": "l1", "ratio": 0.4, "seed": 0, "ppl": 40.0, "seconds": 3.5},
]
TOLERANCES = {"ratio": "exact", "ppl": {"rel": 0.01}}


def tables(rows):
    return {"ppl": {"units": {}, "rows": rows}}


def changed(**values):
    return tables([ROWS[1] | values])


def test_only_named_columns_are_compared_and_the_worst_is_kept():
    (line,) = compare("run", tables(ROWS), tables([ROWS[0] | {"ppl": 20.1}, ROWS[1] | {"seconds": 99.0}]), TOLERANCES)
    assert (line.column, line.matched, line.rows, line.kind) == ("ppl", 2, 2, "rel")
    assert line.worst == pytest.approx(0.005) and line.good


@pytest.mark.parametrize("value, good", [(40.3, True), (41.0, False), (None, False)])
def test_the_bound_is_a_bound(value, good):
    (line,) = compare("run", tables(ROWS), changed(ppl=value), TOLERANCES)
    assert line.good == good


def test_absolute_bounds():
    (line,) = compare("run", tables(ROWS), changed(ppl=40.3), TOLERANCES | {"ppl": {"abs": 0.2}})
    assert line.worst == pytest.approx(0.3) and not line.good


@pytest.mark.parametrize(
    "fresh, tolerances, message",
    [
        (changed(ratio=0.3), TOLERANCES, "nothing was compared"),
        (changed(), {"seconds_": {"rel": 1}}, "nothing was compared"),
        (changed(), {"ppl": {"rel": 0.01}}, "two committed rows share .*`exact`"),
        ({"other": {"units": {}, "rows": ROWS}}, TOLERANCES, "no table 'other'"),
    ],
)
def test_a_comparison_of_nothing_fails(fresh, tolerances, message):
    with pytest.raises(StudyError, match=message):
        compare("run", tables(ROWS), fresh, tolerances)


@pytest.mark.slow
def test_a_profile_is_verified_end_to_end(tmp_path, capsys):
    study = TinyStudy(tmp_path)
    study.notebook(
        "roots",
        "seeds = [1, 2, 3]",
        """
import os
run.table("roots", [{"seed": seed, "root": seed ** 0.5} for seed in seeds])
print(os.environ.get("MPSTUDY_COMPUTED"))""",
    )
    study.profile([study.run("roots", verify={"seeds": [2]})], tolerances={"root": {"rel": 1e-6}})
    with pytest.raises(StudyError, match="no committed result 'roots'"):
        verify("tiny", reports=study.reports, folder=study.profiles)
    study.reproduce()
    before = (study.home / "results/roots.json").read_text()
    assert verify("tiny", reports=study.reports, folder=study.profiles)
    assert "1/1" in capsys.readouterr().out and (study.home / "results/roots.json").read_text() == before
    wrong = json.loads(before)
    wrong["tables"]["roots"]["rows"][1]["root"] = 1.5
    (study.home / "results/roots.json").write_text(json.dumps(wrong))
    assert not verify("tiny", reports=study.reports, folder=study.profiles)
    assert "BEYOND" in capsys.readouterr().out


def test_a_profile_without_verify_runs_or_tolerances_is_refused(tmp_path):
    study = TinyStudy(tmp_path)
    study.notebook("roots", "seeds = [1]", "pass")
    study.profile([study.run("roots")], tolerances={"root": {"rel": 1e-6}})
    with pytest.raises(StudyError, match="no run with `verify`"):
        verify("tiny", reports=study.reports, folder=study.profiles)
    study.profile([study.run("roots", verify={})], tolerances={"seed": "exact"})
    with pytest.raises(StudyError, match="states no tolerances"):
        verify("tiny", reports=study.reports, folder=study.profiles)
