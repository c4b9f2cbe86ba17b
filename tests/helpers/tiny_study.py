"""A study of tiny notebooks in a temporary folder, for the tests of the runner."""

import json
import os
import sys
from pathlib import Path

import yaml

from mpstudy.runner.reproduce import report, reproduce
from mpstudy.store.paths import ROOT


class TinyStudy:
    """Notebooks, one profile `tiny` and its report folder under ``folder``."""

    def __init__(self, folder: Path):
        self.notebooks, self.reports = folder / "notebooks", folder / "reports"
        self.profiles, self.home = self.notebooks / "profiles", self.reports / "tiny"
        self.profiles.mkdir(parents=True)
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        }

    def notebook(self, name: str, parameters: str, code: str, finish: str = "run.finish()") -> Path:
        """Write a notebook with a parameters cell, a cell of ``code`` and a last cell."""
        cells = [
            _cell("markdown", f"# About {name}\n\nWhat `it` **does**."),
            _cell("code", parameters, "parameters"),
            _cell("code", "from mpstudy import record\nrun = record.start()\n" + code),
            _cell("code", finish),
        ]
        for index, cell in enumerate(cells):
            cell["id"] = f"cell-{index}"
        path = self.notebooks / f"{name}.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
        return path

    def run(self, name: str, **more) -> dict:
        return {"name": name, "notebook": name, "minutes": 0.1, **more}

    def profile(self, runs: list[dict], **more) -> None:
        """Write the profile; ``reference_seconds`` 0 means no estimate, so no speed probe."""
        content = {
            "description": "A test.",
            "threads": 1,
            "memory_gb": 0.1,
            "disk_gb": 0,
            "reference_seconds": 0,
            "runs": runs,
        } | more
        (self.profiles / "tiny.yaml").write_text(yaml.safe_dump(content))

    def claims(self, claims: list[dict], objections: list[dict] | None = None) -> None:
        """Write the claims beside the notebooks."""
        content = {"claims": claims} | ({} if objections is None else {"objections": objections})
        (self.notebooks / "claims.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def results(self, run: str, *contrasts: dict, report: str = "tiny") -> None:
        """A result of ``run`` that holds nothing but a table of contrasts, as no code of today has made it."""
        file = self.reports / report / "results" / f"{run}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"run": run, "tables": {"contrasts": {"units": {}, "rows": list(contrasts)}}}))

    def report(self, name: str = "tiny", **more) -> list[str]:
        return report(name, reports=self.reports, folder=self.profiles, **more)

    def reproduce(self, name: str = "tiny", **more) -> bool:
        return reproduce(name, reports=self.reports, folder=self.profiles, **more)

    def result(self, name: str) -> dict:
        return json.loads((self.home / "results" / f"{name}.json").read_text())

    def script(self, code: str) -> list[str]:
        """The command that executes ``code`` in a process of its own."""
        head = (
            "import os, sys, pathlib\nfrom mpstudy.runner.reproduce import report, reproduce\n"
            f"REPORTS, PROFILES = pathlib.Path({str(self.reports)!r}), pathlib.Path({str(self.profiles)!r})\n"
        )
        return [sys.executable, "-c", head + code]


def claim(name: str, **more) -> dict:
    """The entry of a claim on the run `write`."""
    says = {
        "supported": "Yes: {estimate} [{low}, {high}] {unit}, n = {n}.",
        "refuted": "No: {estimate} {unit}, not {margin}.",
        "not resolved": "Not resolved: {estimate}, detectable {detectable}.",
    }
    entry = {"id": name, "question": f"Is {name} so?", "estimand": "Mean over seeds.", "run": "write", "test": "above"}
    return entry | {"margin": 0, "says": says, "minutes": {"tiny": 0.1}, "memory_gb": {"tiny": 0.5}} | more


def contrast(name: str, estimate: float, se: float | None = 0.5, unit: str = "points") -> dict:
    """A row of contrasts over three seeds: two degrees of freedom, whose Student quantile of 97.5 % is 4.302653."""
    half = 4.302653 * (se or 0)
    bounds = {"low": estimate - half, "high": estimate + half} if se is not None else {"low": None, "high": None}
    row = {"contrast": name, "estimate": estimate, "se": se, "df": 2, **bounds}
    return row | {"n": 3, "tokens": None, "items": None, "unit": unit}


def _cell(kind: str, source: str, *tags: str) -> dict:
    cell = {"cell_type": kind, "metadata": {"tags": list(tags)} if tags else {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})
