"""Pages that open in a browser with no server and no network: one a notebook, an index for each profile.

Figures and tables are taken as the notebooks wrote them: ``figures/<run>/<name>.png`` (with ``.pdf`` and
``.csv`` beside it) and ``tables/<run>/<name>.csv``; a text file ``<name>.txt`` beside either is its caption.
"""

import csv
import json
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from ..errors import StudyError
from ..store.files import write_atomically
from .claims import Declared
from .findings import quoted, shown
from .progress import duration

TEMPLATES = Path(__file__).with_name("templates")
MAX_ROWS = 40  # of a table shown on the index; the CSV holds the rest
LOCAL_ONLY = {"smoke", "interactive", "custom"}  # git-ignored, so the committed list of studies must not name them


def write_pages(home: Path, declared: Declared, description: str = "", outdated: Collection[str] = ()) -> Path:
    """(Re)write ``<home>/index.html`` and the list of studies above it; returns the former's path.

    Both begin with what the results say of the ``declared`` claims, where they say anything. It says of the runs
    ``outdated`` that their results do not belong to the code and data as they are. Equal results give equal pages, byte
    for byte.
    """
    results = _load_results(home)
    runs = [_run_view(home, result, result["run"] in outdated) for result in results]
    page = home / "index.html"
    write_atomically(
        page,
        render(
            "profile.html.j2",
            profile=home.name,
            description=description,
            findings=shown(declared, home),
            runs=runs,
            shown_first=sorted(runs, key=lambda run: not run["needs"]),
            facts=provenance(results),
            total=duration(_total(results)),
            outdated=[run["name"] for run in runs if run["outdated"]],
        ),
    )
    _write_studies(home.parent, declared)
    return page


def _load_results(home: Path) -> list[dict]:
    """The finished results in a profile's report folder, by run name; StudyError if there is none."""
    files = sorted((home / "results").glob("*.json"))
    if not files:
        raise StudyError(f"no finished results in {home}; run `python -m mpstudy report --profile {home.name}`")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def write_notebook_page(notebook: Path, page: Path) -> None:
    """An executed notebook as one self-contained HTML file; figures are embedded, nothing is loaded."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        embed_images=True,
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_filename(str(notebook))
    title, _ = _title(notebook)
    write_atomically(page, render("notebook.html.j2", title=title, notebook=notebook.name, body=body))


def rebuild(home: Path, declared: Declared, description: str = "", outdated: Collection[str] = ()) -> Path:
    """Write every page of a profile anew from its executed notebooks and results; as :func:`write_pages`."""
    for result in _load_results(home):
        notebook = home / f"{result['run']}.ipynb"
        if not notebook.is_file():
            raise StudyError(f"{result['run']}: its executed notebook is missing in {home}")
        write_notebook_page(notebook, notebook.with_suffix(".html"))
    return write_pages(home, declared, description, outdated)


def _write_studies(reports: Path, declared: Declared) -> None:
    studies = []
    for folder in sorted(path.parent for path in reports.glob("*/results")):
        if folder.name not in LOCAL_ONLY and (folder / "index.html").is_file() and any(folder.glob("results/*.json")):
            results = _load_results(folder)
            studies.append(
                {
                    "name": folder.name,
                    "runs": len(results),
                    "time": duration(_total(results)),
                    "models": _unique(result["parameters"].get("model") for result in results),
                    "date": _date(results),
                }
            )
    if studies:
        text = render(
            "studies.html.j2", studies=studies, findings=shown(declared, reports / quoted(declared, reports)[0])
        )
        write_atomically(reports / "index.html", text)


def render(template: str, **values) -> str:
    """A page from one of the templates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _run_view(home: Path, result: dict, outdated: bool) -> dict:
    """What the index shows of one run."""
    title, lead = _title(home / f"{result['run']}.ipynb")
    title += " (outdated)" if outdated else ""
    facts, files = result["provenance"], {name for name in result["files"] if (home / name).is_file()}
    figures = [_figure(home, name, files) for name in sorted(files) if re.fullmatch(r"figures/.+\.png", name)]
    tables = [_table(home, name, files) for name in sorted(files) if re.fullmatch(r"tables/.+\.csv", name)]
    stages = [f"{stage['name']} {duration(stage['seconds'])}" for stage in facts["stages"]]
    estimate = facts["estimate_minutes"]
    return {
        "name": result["run"],
        "title": title,
        "outdated": outdated,
        "lead": lead,
        "needs": result["needs"],
        "figures": figures,
        "tables": tables,
        "time": duration(facts["wall_seconds"]),
        "stages": stages,
        "estimate": duration(estimate * 60) if estimate else "–",
        "memory": f"{facts['peak_memory_gb']:.1f} GB",
        "parameters": json.dumps(result["parameters"], ensure_ascii=False, indent=1),
    }


def _figure(home: Path, name: str, files: set[str]) -> dict:
    stem = name.removesuffix(".png")
    others = [(suffix.upper(), f"{stem}.{suffix}") for suffix in ("pdf", "png", "csv") if f"{stem}.{suffix}" in files]
    return {"image": name, "caption": caption(home, stem), "others": others}


def _table(home: Path, name: str, files: set[str]) -> dict:
    stem = name.removesuffix(".csv")
    with (home / name).open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    numeric = [all(re.match(r"[-+−]?[\d.]|$|nan", row[i]) for row in rows if i < len(row)) for i in range(len(header))]
    others = [(suffix.upper(), f"{stem}.{suffix}") for suffix in ("csv", "tex", "md") if f"{stem}.{suffix}" in files]
    return {
        "caption": caption(home, stem),
        "header": list(zip(header, numeric, strict=True)),
        "rows": [list(zip(row, numeric, strict=False)) for row in rows[:MAX_ROWS]],
        "hidden": max(0, len(rows) - MAX_ROWS),
        "others": others,
    }


def caption(home: Path, stem: str) -> str:
    """The caption of a figure or table, or else its name."""
    text = home / f"{stem}.txt"
    return text.read_text(encoding="utf-8").strip() if text.is_file() else Path(stem).name.replace("_", " ")


def _title(notebook: Path) -> tuple[str, str]:
    """First heading of a notebook and the first paragraph under it, as plain text; its name where it is not there."""
    if not notebook.is_file():
        return notebook.stem, ""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    title, _, rest = (texts[0] if texts else "").partition("\n")
    if not title.startswith("#"):
        return notebook.stem, ""
    paragraph = " ".join(rest.strip().split("\n\n")[0].split())
    return _undress(title.lstrip("# ")), _undress(paragraph) if not paragraph.startswith(("#", "-", "|")) else ""


def _undress(markdown: str) -> str:
    """Text without emphasis, code marks and link targets."""
    return re.sub(r"[*`]|\[|\]\([^)]*\)", "", markdown).strip()


def provenance(results: list[dict]) -> list[tuple[str, str]]:
    """The provenance block; where runs differ, every value that occurs."""
    facts = [result["provenance"] for result in results]
    versions = [f"{name} {number}" for fact in facts for name, number in fact["packages"].items() if number]
    revisions = [
        fact["git"]["revision"][:12] + (" with uncommitted changes" if fact["git"]["dirty"] else "")
        for fact in facts
        if fact["git"]["revision"]
    ]
    machines = [f"{fact['cpu']}, {fact['cores']} cores, {fact['memory_gb']:g} GB" for fact in facts]
    rows = {
        "Measured": [_date(results)],
        "Machine": machines,
        "GPU": [fact.get("gpu") for fact in facts],
        "Threads": [str(fact["threads"]) for fact in facts],
        "Number format": [fact.get("dtype") for fact in facts],
        "Peak memory": [f"{max(fact['peak_memory_gb'] for fact in facts):.1f} GB"],
        "Model": [result["parameters"].get("model") for result in results],
        "System": [f"{fact['platform']}, Python {fact['python']}" for fact in facts],
        "Packages": [f"mpstudy {fact['mpstudy']}" for fact in facts] + versions,
        "Code": revisions,
        "Adopted": [_adopted(result["run"], entry) for result in results for entry in result.get("adopted", [])],
    }
    return [(name, text) for name, values in rows.items() if (text := _unique(values))]


def _adopted(run: str, entry: dict) -> str:
    """What was checked when a result got a new fingerprint without being computed again."""
    checked = entry["checked"]
    return (
        f"{run}: {checked['numbers']} numbers of a part, computed again by code {checked['by']['revision']}, are "
        f"equal to nine digits to those of {checked['against']['revision']} on {checked['against']['cpu']}; "
        f"so the results, computed under {entry['computed_under'][:12]}, stand for this code since {entry['adopted']} "
        f"(fingerprint then {entry['fingerprint'][:12]}); "
        f"not reached by the part and so not checked: {', '.join(checked['beyond']) or 'nothing'}"
    )


def _unique(values) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _date(results: list[dict]) -> str:
    days = sorted(datetime.fromisoformat(result["provenance"]["started"]).date() for result in results)
    return str(days[0]) if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _total(results: list[dict]) -> float:
    return sum(result["provenance"]["wall_seconds"] for result in results)
