"""The unit of work: what is finished is skipped, and a result is either whole or not there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_study import TinyStudy, claim

from mpstudy.errors import StudyError
from mpstudy.runner import machine
from mpstudy.runner import reproduce as reproduce_module
from mpstudy.runner.profiles import load_profile
from mpstudy.runner.publish import scrub
from mpstudy.runner.reproduce import _announce, locked, report
from mpstudy.runner.status import status
from mpstudy.store.paths import ROOT

WRITE = """
import os
run.table("squares", [{"seed": seed, "square": float(seed) ** power} for seed in run.track(seeds, "squares")],
          units={"square": "1"})
(run.figures / "curve.png").write_bytes(b"not really a picture")
(run.tables / "squares.csv").write_text("seed,square\\n1,1.0\\n")
print(os.environ["OMP_NUM_THREADS"], os.environ.get("HF_HUB_OFFLINE"), run.figures, os.getcwd())
"""
READ = """
frame = run.frame("write", "squares")
run.table("sums", [{"n": len(frame), "total": frame.square.sum()}])
"""


@pytest.fixture
def study(tmp_path):
    """Two runs: `write` makes a table, a figure and a CSV, `read` needs it."""
    made = TinyStudy(tmp_path)
    made.notebook("write", "seeds = [0, 1, 2]\npower = 2.0\nname = 'a'\nflag = False", WRITE)
    made.notebook("read", "power = 1", READ)
    made.profile([made.run("write"), made.run("read", needs=["write"])])
    return made


@pytest.mark.slow
def test_a_study_runs_once_and_then_not_again(study, capsys):
    assert study.report() == ["write", "read"]
    log = capsys.readouterr().out
    assert log.count("write: squares: 3 in ") == 1 and "tiny: 2 of 2 runs to execute" in log
    write, read = study.result("write"), study.result("read")
    assert write["tables"]["squares"] == {
        "units": {"square": "1"},
        "rows": [{"seed": 0, "square": 0.0}, {"seed": 1, "square": 1.0}, {"seed": 2, "square": 4.0}],
    }
    assert read["tables"]["sums"]["rows"] == [{"n": 3, "total": 5.0}]
    assert write["seeds"] == [0, 1, 2] and write["schema"] == 2 and write["notebook"] == "write"
    facts = write["provenance"]
    assert facts["stages"][0]["name"] == "squares" and facts["stages"][0]["items"] == 3
    assert 0.01 < facts["peak_memory_gb"] < 2 and facts["wall_seconds"] > 0 and facts["threads"] == 1
    for name in write["files"] + read["files"] + ["index.html"]:
        assert (study.home / name).is_file()
    assert write["files"] == [
        "write.ipynb",
        "write.html",
        "figures/write/curve.png",
        "tables/write/squares.csv",
    ]
    printed = (study.home / "write.ipynb").read_text()
    assert "1 1 reports/tiny/work/write" in printed
    for text in (
        printed,
        (study.home / "results/write.json").read_text(),
        (study.home / "write.html").read_text(),
    ):
        assert str(study.home) not in text and str(ROOT) not in text and sys.prefix not in text
    assert os.listdir(study.home / "work") == [".lock"]

    page = (study.home / "index.html").read_bytes()
    assert study.report() == []
    assert "nothing to do" in capsys.readouterr().out and (study.home / "index.html").read_bytes() == page

    (study.home / "figures/write/curve.png").unlink()  # a missing figure is made again, with all that reads its run
    assert study.report() == ["write", "read"]
    study.notebook("read", "power = 1", READ + "\nprint('changed')")
    assert study.report() == ["read"]
    assert study.report(only="write", again=True) == ["write"]
    assert study.report() == [], "the numbers that it had read are the same"


@pytest.mark.slow
def test_a_second_run_imports_nothing_heavy(study):
    study.report(only="write")
    script = study.script(
        "report('tiny', reports=REPORTS, folder=PROFILES, only='write')\n"
        "print([name for name in ('torch', 'papermill', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(script, capture_output=True, text=True, env=study.environment, check=True)
    assert "nothing to do" in done.stdout and done.stdout.rstrip().endswith("[]")


@pytest.mark.slow
def test_every_run_is_checked_before_the_first_one_starts(study):
    study.profile([study.run("write"), study.run("read", parameters={"power": "high"})])
    with pytest.raises(StudyError, match="'power' of read must be int"):
        study.report()
    study.notebook("read", "rho = 0.5", READ)
    study.profile([study.run("write"), study.run("read", parameters={"rho": -1.0})])
    with pytest.raises(StudyError, match="rho must be"):
        study.report()
    assert not study.home.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, message",
    [
        ("1 / 0", r"write failed in cell \[3\]: ZeroDivisionError: division by zero"),
        (
            "from mpstudy.errors import StudyError\nraise StudyError('rho must be positive')",
            "^rho must be positive$",
        ),
        ("import os\nos._exit(9)", "its Python process died"),
    ],
)
def test_a_failed_notebook_leaves_no_result(study, code, message):
    study.notebook("write", "seeds = [1]", "print('here')\n" + code)
    with pytest.raises(StudyError, match=message):
        study.report()
    assert not list(study.home.glob("results/*")) and not list(study.home.glob("*.ipynb"))
    (kept,) = study.home.glob("work/write/*/notebook.ipynb")
    assert "print('here')" in "".join(json.loads(kept.read_text())["cells"][-2]["source"])


@pytest.mark.slow
def test_a_notebook_must_finish(study):
    study.notebook("write", "seeds = [1]", "pass", finish="")
    with pytest.raises(StudyError, match="without `run.finish"):
        study.report()


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_with_the_same_results(study, tmp_path):
    """SIGKILL in the middle of a cell, then before each of the moves that put a result in place."""
    marker = tmp_path / "cell-is-running"
    wait = f"\nimport pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(3)\n"
    study.notebook("write", "seeds = [0, 1, 2]\npower = 2.0", WRITE + wait)
    script = study.script("report('tiny', reports=REPORTS, folder=PROFILES, only='write')")
    process = subprocess.Popen(script, env=study.environment, stdout=subprocess.DEVNULL)
    while not marker.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not list(study.home.glob("results/*"))

    study.notebook("write", "seeds = [0, 1, 2]\npower = 2.0", WRITE)
    for moves in (0, 2, 4):  # notebook, page, figure, CSV, result
        killed = subprocess.run(
            study.script(f"""
count, replace = 0, os.replace
def deadly(source, target):
    global count
    if count == {moves}:
        os.kill(os.getpid(), 9)
    count += str(target).startswith(str(REPORTS))
    replace(source, target)
os.replace = deadly
report('tiny', reports=REPORTS, folder=PROFILES)"""),
            env=study.environment,
            stdout=subprocess.DEVNULL,
        )
        assert killed.returncode == -signal.SIGKILL and not list(study.home.glob("results/*.json"))
    assert study.report() == ["write", "read"]
    whole = report("tiny", reports=tmp_path / "undisturbed", folder=study.profiles)
    assert whole == ["write", "read"]
    for name in whole:
        other = json.loads((tmp_path / f"undisturbed/tiny/results/{name}.json").read_text())
        assert {key: study.result(name)[key] for key in ("tables", "fingerprint", "files")} == {
            key: other[key] for key in ("tables", "fingerprint", "files")
        }


@pytest.mark.slow
def test_independent_runs_execute_at_the_same_time(study, tmp_path, monkeypatch):
    """Each of two notebooks waits until the other one has started; both have all threads of the profile."""
    monkeypatch.setattr(machine, "cores", lambda: 4)
    for mine, other in (("one", "two"), ("two", "one")):
        study.notebook(
            mine,
            "x = 1",
            f"""
import pathlib, time
pathlib.Path({str(tmp_path)!r}, {mine!r}).touch()
deadline = time.monotonic() + 60
while not pathlib.Path({str(tmp_path)!r}, {other!r}).exists():
    assert time.monotonic() < deadline
    time.sleep(0.05)""",
        )
    study.profile([study.run("one"), study.run("two")], threads=2, jobs=3)
    assert study.report() == ["one", "two"]
    for name in ("one", "two"):
        assert study.result(name)["provenance"]["threads"] == study.result(name)["identity"]["threads"] == 2
    assert study.report(jobs=1) == [], "one at a time they would have been the same"


def test_more_threads_than_cores_are_refused(study, monkeypatch):
    study.profile([study.run("write")], threads=2)
    monkeypatch.setattr(machine, "cores", lambda: 5)
    message = "jobs must be at most 2 here, not 3: each run has the 2 threads of the profile tiny.* has 5 cores"
    with pytest.raises(StudyError, match=message):
        study.report(jobs=3)
    with pytest.raises(StudyError, match="jobs must be at least 1, not 0"):
        study.report(jobs=0)
    assert not study.home.exists()


def page_marks(study) -> set[str]:
    """The runs that the page calls outdated."""
    page = (study.home / "index.html").read_text()
    return {name for name in ("write", "read") if f"About {name} (outdated)" in page}


@pytest.mark.slow
def test_an_outdated_result_stays_until_the_new_one_is_there(study, monkeypatch):
    study.report()
    before = {name: study.result(name) for name in ("write", "read")}
    assert page_marks(study) == set() and "Outdated" not in (study.home / "index.html").read_text()
    seen, real = [], reproduce_module.execute

    def failing(run, home, *rest):
        seen.append((run.name, page_marks(study)))
        if run.name == "read":
            assert study.result("read") == before["read"] and study.result("write") != before["write"]
            raise StudyError("as if it were killed")
        real(run, home, *rest)

    monkeypatch.setattr(reproduce_module, "execute", failing)
    study.notebook("write", "seeds = [0, 1, 2]\npower = 2.0", WRITE + "\nprint('changed')")
    with pytest.raises(StudyError, match="as if it were killed"):
        study.report()
    assert seen == [("write", {"write", "read"}), ("read", {"read"})] and page_marks(study) == {"read"}
    monkeypatch.setattr(reproduce_module, "execute", real)
    (study.home / "tables/write/squares.csv").unlink()
    assert study.report(only="write") == ["write"] and page_marks(study) == {"read"}, "also what is not selected"
    assert study.report() == ["read"] and page_marks(study) == set()


@pytest.mark.slow
def test_again_goes_on_after_a_kill(study, monkeypatch):
    study.report()
    real, done = reproduce_module.execute, []

    def dying(run, *rest):
        if done:
            raise StudyError("as if it were killed")
        done.append(run.name)
        real(run, *rest)

    monkeypatch.setattr(reproduce_module, "execute", dying)
    with pytest.raises(StudyError, match="as if it were killed"):
        study.report(again=True)
    rows = status(load_profile("tiny", study.profiles), study.home)
    assert done == ["write"] and [row["state"] for row in rows] == ["current", "stale"]
    assert rows[1]["reasons"] == ["asked for: it is to be executed again"]
    monkeypatch.setattr(reproduce_module, "execute", real)
    assert study.report() == ["read"] and study.report() == []
    assert os.listdir(study.home / "work") == [".lock"]


@pytest.mark.slow
def test_code_that_changes_while_a_run_is_executed_gives_no_result(study):
    """Nobody could say whether the kernel had read the old code or the new one."""
    path = study.notebooks / "write.ipynb"
    edit = f"import pathlib\npath = pathlib.Path({str(path)!r})\n"
    edit += "_ = path.write_text(path.read_text().replace('run.finish()', 'run.finish();x = 1'))"
    study.notebook("write", "seeds = [1]", edit)
    with pytest.raises(StudyError, match="write: notebook: code cell 0 changed, while the runner was at work"):
        study.report()
    assert not list(study.home.glob("results/*")) and not list(study.home.glob("*.ipynb"))


def test_a_report_folder_has_one_runner_at_a_time(study):
    with locked(study.home), pytest.raises(StudyError, match="another process"):
        study.report()


def test_a_full_disk_is_refused(study, monkeypatch):
    study.profile([study.run("write")], disk_gb=3.0)
    monkeypatch.setattr(machine, "free_disk_gb", lambda folder: 0.5)
    with pytest.raises(StudyError, match="no disk space: tiny needs 3 GB free, 0.50 GB are"):
        study.report()


def test_little_memory_is_a_warning(study, monkeypatch, capsys):
    study.profile([study.run("write")], memory_gb=1.5)
    profile = load_profile("tiny", study.profiles)
    monkeypatch.setattr(machine, "available_memory_gb", lambda: 4.0)
    _announce(profile, list(profile.runs), study.profiles, jobs=2)
    assert "warning" not in capsys.readouterr().out
    _announce(profile, list(profile.runs), study.profiles, jobs=3)
    assert "warning: about 4.5 GB of memory needed, 4.0 GB available" in capsys.readouterr().out


def test_what_is_not_there_is_named_before_the_first_notebook_starts(study, monkeypatch):
    monkeypatch.delenv("MPSTUDY_HUB_DIR", raising=False)
    study.notebook("read", "changes = ['sample']", READ)
    study.profile([study.run("write"), study.run("read", parameters={"changes": ["corpus-ptb"]})])
    monkeypatch.setattr(reproduce_module, "execute", lambda *arguments: pytest.fail("started"))
    with pytest.raises(StudyError, match="corpus 'ptb' cannot be loaded"):
        study.report()


def test_the_estimate_scales_with_the_speed_of_this_machine(study, monkeypatch, capsys):
    study.profile([study.run("write", minutes=2), study.run("read", minutes=3)], reference_seconds=0.5)
    monkeypatch.setattr(machine, "probe_seconds", lambda threads: 1.0)
    profile = load_profile("tiny", study.profiles)
    estimates = _announce(profile, list(profile.runs), study.profiles, jobs=1)
    assert estimates == {"write": 240.0, "read": 360.0}
    assert "2 of 2 runs to execute; about 10.0 min, 0.1 GB memory, 0 GB disk" in capsys.readouterr().out


def test_scrubbing_leaves_no_folder_of_this_machine():
    text = f'{ROOT}/mpstudy/x.py "{ROOT}" {Path.home()}/y /tmp/ipykernel_7/81.py:3: /models/mine {ROOT}-other'
    clean = scrub(text, Path("/data/reports/laptop"), {"model": "/models/mine"})
    assert clean == f'./mpstudy/x.py "." ~/y <cell>:3: mine {ROOT}-other'


CONTRASTS = """
import numpy as np
squares = np.array([float(seed) ** power for seed in seeds])
def row(name, values):
    se = float(values.std(ddof=1) / len(values) ** 0.5)
    value, half = float(values.mean()), 4.302653 * se
    return {"contrast": name, "estimate": value, "se": se, "df": 2, "low": value - half, "high": value + half,
            "n": len(values), "tokens": None, "items": None, "unit": "points"}
run.table("contrasts", [row("a", 100 + squares)] + ([row("b", squares)] if other else []))
"""


@pytest.mark.slow
def test_a_claim_executes_its_part_alone_and_is_judged_on_both_sides(study, capsys):
    study.notebook("write", "seeds = [0, 1, 2]\npower = 2.0\nother = True", CONTRASTS)
    study.notebook("read", "power = 1", "run.table('n', [{'n': len(run.frame('write', 'contrasts'))}])")
    study.claims([claim("a", part={"other": False}), claim("b")])
    study.report()
    before = {file: file.read_bytes() for file in study.home.rglob("*") if file.is_file()}
    capsys.readouterr()

    assert study.reproduce(claim="a") is True
    log = capsys.readouterr().out
    home = study.reports / "reproduced" / "tiny-a"
    assert [file.name for file in (home / "results").iterdir()] == ["write.json"], "what reads it is not executed"
    new = json.loads((home / "results" / "write.json").read_text())
    assert new["parameters"] == {"seeds": [0, 1, 2], "power": 2.0, "other": False}
    assert [row["contrast"] for row in new["tables"]["contrasts"]["rows"]] == ["a"]
    assert "tiny-a: 1 of 1 runs to execute" in log and "reproduced: of 4 values 4 are equal" in log
    sentence = "supported: Yes: +102 [+96.5, +107] points, n = 3."
    assert f"claim a: Is a so?\n  report: {sentence}\n  here: {sentence}\n" in log
    assert {file: file.read_bytes() for file in study.home.rglob("*") if file.is_file()} == before

    result = study.result("write")
    result["tables"]["contrasts"]["rows"][0] |= {"estimate": 0.1}
    (study.home / "results" / "write.json").write_text(json.dumps(result))
    assert study.reproduce(claim="a") is False
    log = capsys.readouterr().out
    assert "nothing to do" in log and "  report: not resolved: " in log and f"  here: {sentence}" in log


@pytest.mark.slow
def test_a_claim_implies_its_profile(study, capsys):
    study.notebook("write", "seeds = [0, 1, 2]\npower = 2.0\nother = True", CONTRASTS)
    study.notebook("read", "power = 1", "run.table('n', [{'n': 1}])")
    shutil.copy(study.profiles / "tiny.yaml", study.profiles / "other.yaml")
    study.claims([claim("a", profile="other", minutes={"other": 1}, memory_gb={"other": 1})])
    study.report("other", only="write")
    assert study.reproduce(claim="a") is True
    assert (study.reports / "reproduced" / "other-a" / "results" / "write.json").is_file()
    assert "  here: supported: Yes: +102 " in capsys.readouterr().out and not study.home.exists()


def test_a_claim_that_cannot_be_reproduced_is_named_before_anything_is_executed(study):
    study.claims([claim("a"), claim("b")])
    with pytest.raises(StudyError, match="^unknown claim 'c'; known: a, b$"):
        study.reproduce(claim="c")
    for more in ({"quick": True}, {"seeds": [0]}, {"only": "write"}):
        with pytest.raises(StudyError, match="leave out --quick, --seeds and --only"):
            study.reproduce(claim="a", **more)
    assert not study.reports.exists()


def test_bad_claims_are_named_before_the_first_notebook_starts(study):
    study.claims([claim("a", margin="2 %")])
    with pytest.raises(StudyError, match="margin in claim 'a'"):
        study.report()
    assert not study.home.exists()
