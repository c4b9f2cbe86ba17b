"""Markup in names and texts that reach the pages of a report."""

import json
from html.parser import HTMLParser
from pathlib import Path

from . import children, tiny
from .commands import Bench
from .row import Row

POSSIBLE = ("unclear", "executed")
PLACES = (
    "description", "parameter", "column", "cell", "csv-column", "csv-cell", "caption", "figure-caption", "printed",
    "folder", "unit",
)  # fmt: skip
NOTEBOOK = """
from mpstudy import record
run = record.start()
print(texts["printed"])
run.table("rows", [{{"{column}": texts["cell"], "n": 1.0}}], units={{"n": texts["unit"]}})
import csv
with open(run.tables / "rows.csv", "w", newline="") as file:
    csv.writer(file).writerows([[texts["csv-column"], "n"], [texts["csv-cell"], "1"]])
(run.tables / "rows.txt").write_text(texts["caption"])
(run.figures / "curve.png").write_bytes(b"no picture")
(run.figures / "curve.txt").write_text(texts["figure-caption"])
"""


def campaign(bench: Bench) -> Row:
    """Report a study whose texts are markup, reproduce it, and look for elements in its pages that are none of ours."""
    row = Row("markup in reported names and texts", POSSIBLE)
    print(row.kind, flush=True)
    pages = _pages(bench, row)
    for place in PLACES:
        row.tried()
        seen = False
        for page in pages:
            reader = Reader(place)
            reader.feed(page.read_text(encoding="utf-8"))
            seen |= reader.seen
            if reader.alive:
                row.harm("executed", f"{place} in {page.name}: {reader.alive}")
        if not seen and place != "unit":  # no page shows units
            row.harm("unclear", f"{place} is on no page, so nothing was tried")
    return row


def payload(place: str) -> str:
    """Markup that would run in a browser: an element, and one out of an attribute."""
    mark = _mark(place)
    return f"<{mark} onclick='{mark}()'>\"><img src=x onerror={mark}()>'&amp;<script>{mark}()"


def _mark(place: str) -> str:
    return f"canary{PLACES.index(place):02}"


def _pages(bench: Bench, row: Row) -> list[Path]:
    """Every page of the report of a study full of markup, and of its reproduction."""
    folder = bench.folder / "markup"
    model = folder / payload("folder").replace("/", "")
    model.parent.mkdir()
    tiny.model(model)
    texts = {place: payload(place) for place in PLACES}
    column = json.dumps(payload("column"))[1:-1]
    parameters = {"note": payload("parameter"), "model": str(model), "texts": json.dumps(texts)}
    code = "import json\ntexts = json.loads(texts)\n" + NOTEBOOK.format(column=column)
    tiny.study(folder / "study", payload("description"), parameters, code)
    for name in ("report", "reproduce"):
        ended = children.run(bench.in_study(folder / "study", name, folder / "reports"), bench.logs)
        if not ended.is_good:
            row.harm("unclear", f"{name}: {ended.last_words}")
    return sorted((folder / "reports").rglob("*.html"))


class Reader(HTMLParser):
    """Whether the markup of a place stands in a page, as text or inside an attribute, and where as an element."""

    def __init__(self, place: str):
        super().__init__()
        self.mark, self.seen, self.alive = _mark(place), False, ""
        self.in_script = False

    def handle_starttag(self, tag, attributes):
        handlers = [name for name, value in attributes if name.startswith("on") and self.mark in (value or "")]
        if tag.startswith(self.mark) or handlers:
            self.seen = True
            self.alive = self.get_starttag_text() or tag
        self.seen |= any(self.mark in (value or "") for _, value in attributes)
        self.in_script = tag == "script"

    def handle_endtag(self, tag):
        self.in_script &= tag != "script"

    def handle_data(self, data):
        if self.mark in data:
            self.seen = True
            if self.in_script:
                self.alive = data[:80]
