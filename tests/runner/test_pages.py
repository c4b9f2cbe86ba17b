"""The pages: complete, escaped, and readable with no server and no network."""

import base64
import html.parser
import json
from pathlib import Path

import nbformat
import pytest
from helpers.tiny_study import TinyStudy, claim, contrast

from mpstudy.errors import StudyError
from mpstudy.runner.claims import Declared, load_claims
from mpstudy.runner.pages import MAX_ROWS, rebuild, write_notebook_page, write_pages

NOTHING = Declared(Path())
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FACTS = {
    "mpstudy": "0.1.0",
    "packages": {"torch": "2.13.0", "peft": None},
    "python": "3.11.4",
    "platform": "Linux x86_64",
    "cpu": "A <fast> CPU",
    "cores": 2,
    "memory_gb": 16.0,
    "threads": 2,
    "dtype": "float32",
    "gpu": None,
    "git": {"revision": "0123456789abcdef", "dirty": True},
    "started": "2026-01-02T03:04:05+00:00",
    "wall_seconds": 600.0,
    "stages": [{"name": "scores", "seconds": 210.0, "items": 24}],
    "peak_memory_gb": 1.5,
    "estimate_minutes": 9.0,
}


class Links(html.parser.HTMLParser):
    """Every address a page loads or links to."""

    def __init__(self, page: Path):
        super().__init__()
        self.loads, self.links, self.tags = [], [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (tag == "link" and name == "href"):
                self.loads.append(value)
            elif name == "href":
                self.links.append(value)


def add_run(home: Path, name: str, rows: int = 2, needs: tuple = (), contrasts: tuple = ()) -> None:
    """A finished run with one figure and one table, as the runner leaves it."""
    for folder in ("results", f"figures/{name}", f"tables/{name}"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    figure, table = f"figures/{name}/curve", f"tables/{name}/scores_by_method"
    (home / f"{figure}.png").write_bytes(DOT)
    (home / f"{figure}.txt").write_text(f"Perplexity of {name}, ratio < 0.5 & more.")
    (home / f"{figure}.csv").write_text("x\n1\n")
    (home / f"{table}.csv").write_text("method,ppl\n" + "".join(f"<b>{i}</b>,{i}.5\n" for i in range(rows)))
    cells = [
        nbformat.v4.new_markdown_cell(f"# The run {name}\n\nWhat *it* does."),
        nbformat.v4.new_code_cell(
            "print(1)",
            outputs=[
                nbformat.v4.new_output("stream", text="1\n"),
                nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(DOT).decode()}),
                nbformat.v4.new_output("execute_result", {"text/html": "<table><tr><td>7</td></tr></table>"}),
            ],
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), home / f"{name}.ipynb")
    write_notebook_page(home / f"{name}.ipynb", home / f"{name}.html")
    files = [
        f"{name}.ipynb",
        f"{name}.html",
        f"{figure}.png",
        f"{figure}.txt",
        f"{figure}.csv",
        f"{table}.csv",
    ]
    result = {
        "run": name,
        "parameters": {"model": "small", "note": "<script>"},
        "needs": dict.fromkeys(needs, "0"),
        "tables": {"contrasts": {"units": {}, "rows": list(contrasts)}} if contrasts else {},
        "files": files,
        "provenance": FACTS,
    }
    (home / "results" / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def home(tmp_path):
    add_run(tmp_path / "laptop", "first")
    add_run(tmp_path / "laptop", "second", rows=MAX_ROWS + 3, needs=("first",))
    write_pages(tmp_path / "laptop", NOTHING, "A study & its <notebooks>.")
    return tmp_path / "laptop"


def test_the_index_lists_every_figure_table_and_run(home):
    page = (home / "index.html").read_text()
    for text in (
        "Perplexity of first, ratio &lt; 0.5 &amp; more.",
        "The run second",
        "What it does.",
        "scores by method",
        "3 more rows in the CSV",
        "10.0 min",
        "9.0 min",
        "0123456789ab with uncommitted changes",
        "torch 2.13.0",
        "A &lt;fast&gt; CPU",
        "make reproduce PROFILE=laptop",
        "2026-01-02",
        "A study &amp; its &lt;notebooks&gt;.",
        "&lt;b&gt;0&lt;/b&gt;",
        "&lt;script&gt;",
        "scores 210 s",
    ):
        assert text in page
    assert "<script" not in page and "peft" not in page
    assert page.index("second/curve.png") < page.index("first/curve.png"), "what sums up others comes first"


def test_every_link_leads_to_a_file(home):
    for page in [*home.glob("*.html"), home.parent / "index.html"]:
        found = Links(page)
        for address in found.loads + found.links:
            if not address.startswith(("#", "data:")):
                assert (page.parent / address).resolve().is_file(), f"{page.name}: {address}"


def test_pages_load_nothing_from_elsewhere(home):
    for page in [*home.glob("*.html"), home.parent / "index.html"]:
        found = Links(page)
        assert not [address for address in found.loads if "//" in address]
        assert "script" not in found.tags and "@import" not in page.read_text() and "url(" not in page.read_text()
    notebook = Links(home / "first.html")
    assert [address for address in notebook.loads if address.startswith("data:image/png")]


def test_equal_results_give_equal_pages(home):
    before = {page: page.read_bytes() for page in home.parent.rglob("*.html")}
    rebuild(home, NOTHING, "A study & its <notebooks>.")
    assert {page: page.read_bytes() for page in home.parent.rglob("*.html")} == before


def test_outdated_runs_are_marked_even_where_files_of_theirs_are_gone(home):
    (home / "tables/first/scores_by_method.csv").unlink()
    (home / "second.ipynb").unlink()
    write_pages(home, NOTHING, outdated=["first"])
    page = (home / "index.html").read_text()
    assert "The run first (outdated)" in page and page.count("(outdated)") == 2, "its card and its figure"
    assert "as they are: first." in page and "<h3>second</h3>" in page


def test_the_list_of_studies_leaves_out_what_is_not_committed(home):
    add_run(home.parent / "smoke", "first")
    add_run(home.parent / "own", "first")
    write_pages(home.parent / "smoke", NOTHING)
    write_pages(home.parent / "own", NOTHING)
    add_run(home.parent / "custom", "first")
    write_pages(home.parent / "custom", NOTHING)
    page = (home.parent / "index.html").read_text()
    assert 'href="laptop/index.html"' in page and 'href="own/index.html"' in page and "smoke/" not in page
    assert "custom/" not in page
    assert "make reproduce" not in (home.parent / "own" / "index.html").read_text()


def test_an_empty_report_is_an_error(tmp_path):
    with pytest.raises(StudyError, match="no finished results"):
        write_pages(tmp_path / "laptop", NOTHING)


def test_a_missing_notebook_is_named(home):
    (home / "first.ipynb").unlink()
    with pytest.raises(StudyError, match="first: its executed notebook is missing"):
        rebuild(home, NOTHING)


def test_verdicts_stand_on_the_page_of_the_profile_and_the_abstract_above_the_list(home, tmp_path):
    study = TinyStudy(tmp_path / "study")
    study.notebook("write", "seeds = [0]", "pass")
    study.profile([study.run("write")])
    study.claims(
        [claim("a", question="Is <a> so?"), claim("b")],
        [{"objection": "No <cost>.", "claims": ["a", "b"]}, {"objection": "One family.", "claims": []}],
    )
    abstract = '{% block abstract %}\nHere: {{ claims["a"].sentence }}\n{% endblock %}'
    (study.notebooks / "findings.md.j2").write_text(abstract)
    declared = load_claims(study.notebooks)
    page, studies = home / "index.html", home.parent / "index.html"
    before = page.read_text(), studies.read_text()
    write_pages(home, declared, "A study & its <notebooks>.")
    assert (page.read_text(), studies.read_text()) == before, "nothing is shown while no claim is computed"

    add_run(home, "write", contrasts=(contrast("a", 30.126),))
    write_pages(home, declared)
    text = page.read_text()
    for wanted in (
        "Is &lt;a&gt; so?",
        "+30.1 [+28.0, +32.3] points",
        "python -m mpstudy reproduce --profile laptop --claim a",
        "No &lt;cost&gt;.",
        "One family.",
        "No claim answers this.",
        "Not computed: write has recorded no contrast b.",
    ):
        assert wanted in text
    assert text.index('id="claims"') < text.index("<h2>Notebooks</h2>") and 'id="a"' in text
    text = studies.read_text()
    assert "<p>Here: Yes: +30.1 [+28.0, +32.3] points, n = 3.</p>" in text
    assert text.index("Is &lt;a&gt; so?") < text.index('class="card"') and 'id="a"' not in text
    add_run(home.parent / "smoke", "write", contrasts=(contrast("a", -70.0),))
    write_pages(home.parent / "smoke", declared)
    assert studies.read_text() == text, "only the profile that README quotes stands above the list"
