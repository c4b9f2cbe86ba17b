"""`reproduce`: a study anew beside its report, never over it, and what it says of the two."""

import html.parser
import json
import os
import signal
import subprocess
import time

import pytest
from helpers.tiny_study import TinyStudy

from mpstudy.errors import StudyError
from mpstudy.runner import reproduce as runner
from mpstudy.runner import verdict
from mpstudy.runner.compare import Cell

ROOTS = """
import base64, os
rows = [{"seed": seed, "root": seed ** 0.5, "seconds": os.times().elapsed} for seed in run.track(seeds, "roots")]
run.table("roots", rows)
run.table("mean", [{"what": "mean", "mean": sum(row["root"] for row in rows) / len(rows)}])
(run.figures / "curve.png").write_bytes(base64.b64decode(DOT))
(run.figures / "curve.txt").write_text("A curve of roots.")
print(os.environ.get("MPSTUDY_COMPUTED"))
""".replace("DOT", '"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="')
SUMS = 'run.table("sums", [{"n": 1, "total": float(run.frame("roots", "roots").root.sum())}])'
RULES = {"tolerances": {"root": {"rel": 1e-6}}, "timings": ["seconds"], "pooled": ["mean", "sums"]}


@pytest.fixture
def study(tmp_path):
    """A fresh clone: the report of two runs is there, nothing else."""
    made = TinyStudy(tmp_path)
    made.notebook("roots", "seeds = [1, 2, 3]", ROOTS)
    made.notebook("sums", "power = 1", SUMS)
    made.profile([made.run("roots", quick={"seeds": [2]}), made.run("sums", needs=["roots"])], **RULES)
    made.report()
    return made


@pytest.fixture
def executed(monkeypatch):
    """The names of the runs that are executed, as they are."""
    names, execute = [], runner.execute
    monkeypatch.setattr(runner, "execute", lambda run, *rest: (names.append(run.name), execute(run, *rest)))
    return names


def files_of(home):
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in home.rglob("*") if file.is_file()}


def change(study, run, table, row, **values):
    """Change a row of the report."""
    result = study.result(run)
    result["tables"][table]["rows"][row] |= values
    (study.home / "results" / f"{run}.json").write_text(json.dumps(result))


class Page(html.parser.HTMLParser):
    """The images and links of a page, and what stands in its cells."""

    def __init__(self, file):
        super().__init__()
        self.images, self.links, self.cells, self.tag = [], [], [], ""
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.tag = self.tag if tag == "br" else tag
        self.images += [dict(attributes)["src"]] if tag == "img" else []
        self.links += [dict(attributes)["href"]] if tag == "a" else []

    def handle_data(self, text):
        if self.tag == "td" and text.strip():
            self.cells.append(text)


@pytest.mark.slow
def test_a_fresh_clone_is_reproduced_beside_its_report(study, executed, capsys):
    before = files_of(study.home) | {study.reports / "index.html": None}
    assert study.reproduce() and executed == ["roots", "sums"]
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "reproduced: of 5 values 5 are equal, 0 within their tolerance"
    assert "roots         4      4       0        0             3" in said, "run, compared, equal, within, outside, not"
    assert "not compared: 3 timings and memory" in said
    assert files_of(study.home) | {study.reports / "index.html": None} == before
    assert not [path for path in study.reports.iterdir() if path.name not in ("tiny", "index.html", "reproduced")]

    home = study.reports / "reproduced/tiny"
    assert "reports/tiny/computed" in (home / "roots.ipynb").read_text(), "values computed elsewhere are not used"
    page, found = (home / "comparison.html").read_bytes(), Page(home / "comparison.html")
    assert found.images == ["../../tiny/figures/roots/curve.png", "figures/roots/curve.png"]
    assert all((home / address).is_file() for address in found.images + found.links if not address.startswith("#"))
    assert page.count(b"A curve of roots.") == 4 and b"the same picture, byte for byte" in page

    results = files_of(home / "results")
    assert study.reproduce() and executed == ["roots", "sums"], "nothing is executed twice"
    assert files_of(home / "results") == results and (home / "comparison.html").read_bytes() == page
    assert study.reproduce(again=True) and executed == ["roots", "sums"] * 2


@pytest.mark.slow
def test_one_run_shares_the_results_of_all_and_nothing_else(study, executed, capsys):
    """Its page and its computed values are its own, so that neither loses the other's."""
    (study.home / "results/sums.json").unlink()
    assert study.reproduce(only="roots") and executed == ["roots"], "the report needs to hold no other run"
    home = study.reports / "reproduced/tiny"
    assert "reports/tiny/computed-roots" in (home / "roots.ipynb").read_text()
    page = (home / "comparison-roots.html").read_bytes()
    assert "page: " in (said := capsys.readouterr().out) and "comparison-roots.html" in said

    study.report()
    assert study.reproduce() and executed[-1] == "sums" and executed.count("roots") == 1
    assert (home / "comparison-roots.html").read_bytes() == page and b"sums" in (home / "comparison.html").read_bytes()
    (home / "computed").mkdir(exist_ok=True)
    (home / "computed/value").touch()
    (home / "computed-roots").mkdir(exist_ok=True)
    (home / "computed-roots/value").touch()
    whole = (home / "comparison.html").read_bytes()
    assert study.reproduce(only="roots", again=True) and executed[-1] == "roots"
    assert (home / "computed/value").is_file() and not (home / "computed-roots/value").exists()
    assert (home / "comparison.html").read_bytes() == whole


@pytest.mark.slow
def test_other_seeds_have_a_folder_of_their_own(study, executed):
    assert study.reproduce() and executed == ["roots", "sums"]
    results = files_of(study.reports / "reproduced/tiny/results")
    assert study.reproduce(seeds=[2, 3]) and study.reproduce(seeds=[0, 1], only="roots")
    assert executed == ["roots", "sums"] * 2 + ["roots"]
    assert (study.reports / "reproduced/seeds-2-3/tiny/comparison.html").is_file()
    assert (study.reports / "reproduced/2-seeds/tiny/comparison-roots.html").is_file()
    assert files_of(study.reports / "reproduced/tiny/results") == results
    assert study.reproduce() and len(executed) == 5


@pytest.mark.slow
def test_what_differs_is_named_with_both_values(study, executed, capsys):
    study.reproduce()
    before = study.result("roots")
    change(study, "roots", "roots", 1, root=1.5)
    assert not study.reproduce() and executed == ["roots", "sums"]
    said = capsys.readouterr().out.splitlines()
    assert "outside: roots · roots · seed=2 · root: 1.5 -> 1.41421 (allowed: ± 0.0001 %)" in said
    assert said[-1] == "NOT REPRODUCED: 1 of 5 compared values are outside their tolerance"
    shown = Page(study.reports / "reproduced/tiny/comparison.html").cells
    assert shown[:7] == ["roots", "roots", "seed=2", "root", "1.5", "1.41421", "± 0.0001 %"]

    change(study, "roots", "roots", 1, root=2**0.5 * (1 + 1e-7))
    assert study.reproduce() and "4 are equal, 1 within" in capsys.readouterr().out
    (study.home / "results/roots.json").write_text(json.dumps(before | {"parameters": {"seeds": [1, 2]}}))
    assert not study.reproduce()
    assert "outside: roots · parameters · seeds: [1, 2] -> [1, 2, 3]" in capsys.readouterr().out


@pytest.mark.slow
def test_the_quick_part_and_other_seeds_are_compared_on_the_rows_that_match(study, executed, capsys):
    assert study.reproduce(quick=True) and executed == ["roots"]
    said = capsys.readouterr().out
    assert "reproduced: of 1 values 1 are equal" in said and "1 over other seeds or methods than here" in said
    assert (study.reports / "reproduced/tiny-quick/comparison.html").is_file()
    assert not (study.reports / "reproduced/tiny").exists()

    assert study.reproduce(quick=True, seeds=[3]) and "1 values 1 are equal" in capsys.readouterr().out
    assert study.reproduce(only="roots", seeds=[3, 4]) and executed == ["roots"] * 3
    said = capsys.readouterr().out
    assert "1 without a counterpart in the report" in said and "2 timings and memory" in said, "the root of 4"
    change(study, "roots", "roots", 2, root=1.0)
    assert not study.reproduce(only="roots", seeds=[3, 4])
    with pytest.raises(StudyError, match="nothing could be compared"):
        study.reproduce(only="roots", seeds=[7])


@pytest.mark.slow
def test_a_killed_reproduction_goes_on(study, tmp_path, executed):
    before, marker = files_of(study.home), tmp_path / "cell-is-running"
    wait = f"\nimport pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(3)\n"
    study.notebook("sums", "power = 1", SUMS + wait)
    script = study.script("reproduce('tiny', reports=REPORTS, folder=PROFILES)")
    process = subprocess.Popen(script, env=study.environment, stdout=subprocess.DEVNULL)
    while not marker.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert os.listdir(study.reports / "reproduced/tiny/results") == ["roots.json"]
    study.notebook("sums", "power = 1", SUMS)
    assert study.reproduce() and executed == ["sums"] and files_of(study.home) == before


@pytest.mark.slow
def test_a_second_reproduction_imports_nothing_heavy(study):
    study.reproduce()
    script = study.script(
        "print(reproduce('tiny', reports=REPORTS, folder=PROFILES))\n"
        "print([name for name in ('torch', 'papermill', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(script, capture_output=True, text=True, env=study.environment, check=True)
    assert "nothing to do" in done.stdout and done.stdout.splitlines()[-2:] == ["True", "[]"]


def test_without_a_report_nothing_is_executed(tmp_path, executed):
    study = TinyStudy(tmp_path)
    study.notebook("roots", "seeds = [1]", ROOTS)
    study.profile([study.run("roots")])
    with pytest.raises(
        StudyError, match="no result 'roots' in .*reports/tiny to compare with; .* report --profile tiny"
    ):
        study.reproduce()
    with pytest.raises(StudyError, match="no run with `quick` parameters"):
        study.reproduce(quick=True)
    assert not study.reports.exists() and executed == []


def test_a_tolerance_of_no_column_is_an_error_before_any_work(tmp_path, executed):
    study = TinyStudy(tmp_path)
    study.notebook("roots", "seeds = [1]", ROOTS)
    study.profile([study.run("roots")], tolerances={"rot": {"abs": 1}})
    (study.home / "results").mkdir(parents=True)
    result = {"tables": {"roots": {"units": {}, "rows": [{"root": 1.0}]}}}
    (study.home / "results/roots.json").write_text(json.dumps(result))
    with pytest.raises(StudyError, match="unknown column .* 'rot'; known: root"):
        study.reproduce()
    assert executed == [] and not (study.reports / "reproduced").exists()


def test_a_figure_that_one_side_lacks_is_said_to_be_missing(tmp_path):
    old, new = tmp_path / "tiny", tmp_path / "reproduced/tiny"
    for home, pictures in ((old, {"a": b"1", "b": b"1"}), (new, {"a": b"2", "c": b"1"})):
        (home / "figures").mkdir(parents=True)
        for name, content in pictures.items():
            (home / f"figures/{name}.png").write_bytes(content)
    files = [{"files": [f"figures/{name}.png" for name in names] + ["run.html"]} for names in ("ab", "ac")]
    shown = [
        (f["name"], f["same"], *(side["image"] for side in f["sides"])) for f in verdict._figures(old, new, *files)
    ]
    assert shown == [
        ("a", False, "../../tiny/figures/a.png", "figures/a.png"),
        ("b", False, "../../tiny/figures/b.png", None),
        ("c", False, None, "figures/c.png"),
    ]


def test_the_terminal_names_twenty_at_most(tmp_path, capsys):
    cells = [Cell("run", "t", (("seed", i),), "x", 1.0, 2.0, "outside", {"rel": 0.5}) for i in range(23)]
    assert not verdict.tell(tmp_path, cells)
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("outside: ") for line in said) == 20 and "... and 3 more on the page" in said


@pytest.mark.parametrize(
    "old, new, shown",
    [
        (1.0, 2.0, ("1", "2")),
        (0.123456789, 0.123456788, ("0.123456789", "0.123456788")),
        (1 / 3, 1 / 3, ("0.3333333333333333", "0.3333333333333333")),
        (None, 0.5, ("missing", "0.5")),
        ([1], [1, 2], ("[1]", "[1, 2]")),
    ],
)
def test_as_many_digits_as_show_a_difference(old, new, shown):
    assert verdict.both(Cell("run", "t", (), "x", old, new, "outside")) == shown


def test_long_texts_begin_shortly_before_they_differ(tmp_path, capsys):
    old, new = ("word " * 40 + end + "\n more" * 40 for end in ("here", "there"))
    verdict.tell(tmp_path, [Cell("run", "t", (), "text", old, new, "outside", "equal")])
    line = capsys.readouterr().out.splitlines()[2 + 1]
    assert "here more" in line and "there more" in line and len(line) < 250 and line.endswith("(allowed: equal only)")
