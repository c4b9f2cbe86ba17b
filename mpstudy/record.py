"""What a notebook uses to time its stages, keep its tables and read the results of other runs.

    run = record.start()
    for seed in run.track(seeds, "scores"):
        ...
    run.table("overlap", rows, units={"overlap": "share of removed units"})
    run.finish()

Under the runner everything goes to the run's work folder and becomes a result only when the whole notebook
has succeeded; figures then lie in ``reports/<profile>/figures/<run>``, tables likewise.
In an open Jupyter session the same calls write to ``reports/interactive/<notebook>``.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from . import memory
from .errors import StudyError
from .store.paths import REPORTS, model_name

Item = TypeVar("Item")

_EVERY = 0.25  # seconds between two progress lines of one stage


def start() -> "Recorder":
    """The recorder of the run this notebook belongs to: the runner's (``MPSTUDY_RUN``) or an interactive one."""
    context = os.environ.get("MPSTUDY_RUN")
    if context:
        return Recorder(**json.loads(Path(context).read_text(encoding="utf-8")))
    name, parameters = _session()
    work = REPORTS / "interactive" / name
    work.mkdir(parents=True, exist_ok=True)
    return Recorder(
        run=name,
        profile="interactive",
        work=str(work),
        parameters=parameters,
        reports=str(REPORTS / os.environ.get("MPSTUDY_PROFILE", "laptop")),
    )


def _session() -> tuple[str, dict]:
    """Name of the open notebook (JupyterLab tells it) and the parameters that a figure's stamp shows."""
    name = Path(os.environ.get("JPY_SESSION_NAME", "session")).stem
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    values = shell.user_ns if shell else {}
    return name, {key: values[key] for key in ("model", "seeds") if key in values}


class Recorder:
    """Records one execution of one notebook: where it writes, and its tables and stages so far."""

    def __init__(self, *, run: str, profile: str, work: str, reports: str, parameters: dict):
        self.name, self.profile, self.parameters = run, profile, parameters
        self.work, self.reports = Path(work), Path(reports)
        self.figures, self.tables = self.work / "figures", self.work / "tables"
        self.progress_file = self.work / "progress.jsonl"
        self.interactive = profile == "interactive"
        self._stages: list[dict[str, Any]] = []
        self._tables: dict[str, dict] = {}
        for folder in (self.figures, self.tables):
            folder.mkdir(exist_ok=True)
        self.progress_file.write_text("", encoding="utf-8")

    def track(self, iterable: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
        """Yield from ``iterable`` while the runner's terminal shows how far it is; one line at the end."""
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        with self._timed(stage, total) as step:
            for item in iterable:
                yield item
                step()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block that has no steps to count."""
        with self._timed(name, None):
            yield

    def counting(self, stage: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """A block that counts its own steps: ``with run.counting("LoRA", 40) as step: ... step()``."""
        return self._timed(stage, total)

    @contextmanager
    def _timed(self, stage: str, total: int | None) -> Iterator[Callable[[], None]]:
        begin, shown, done = time.perf_counter(), -math.inf, 0

        def tell(event: str) -> None:
            seconds = round(time.perf_counter() - begin, 2)
            line = {"event": event, "stage": stage, "done": done, "total": total, "seconds": seconds}
            with self.progress_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self.interactive and event == "step" and done:
                print(f"\r{stage}: {done}/{total or '?'}, {seconds:.0f} s", end="\r", flush=True)

        def step() -> None:
            nonlocal shown, done
            done += 1
            if time.perf_counter() - shown >= _EVERY:
                shown = time.perf_counter()
                tell("step")

        tell("step")
        try:
            yield step
        finally:  # also when the loop is left by `break`
            seconds = time.perf_counter() - begin
            tell("end")
            self._stages.append({"name": stage, "seconds": round(seconds, 2), "items": done or None})
            print(f"{stage}: {f'{done} in ' if done else ''}{seconds:.{0 if seconds >= 10 else 1}f} s")

    def table(self, name: str, rows: Any, units: dict[str, str] | None = None) -> None:
        """Keep a tidy table: a DataFrame or a list of dicts with the same columns, one observation a row.

        ``units`` says what the numbers of a column mean. Values are text, numbers, booleans or None; scalars
        of numpy and torch become Python's, NaN becomes None (missing), an infinite number is an error.
        """
        rows = rows.to_dict("records") if hasattr(rows, "to_dict") else list(rows)
        if not rows or name in self._tables:
            raise StudyError(f"table {name!r} {'is there already' if rows else 'has no rows'}")
        columns, units = list(rows[0]), units or {}
        for index, row in enumerate(rows):
            if list(row) != columns:
                raise StudyError(f"table {name!r}, row {index}: columns {list(row)}, expected {columns}")
        if unknown := [column for column in units if column not in columns]:
            raise StudyError(f"table {name!r}: units for unknown columns {unknown}; known: {columns}")
        kept = [
            {
                str(column): _plain(value, f"table {name!r}, row {index}, column {column!r}")
                for column, value in row.items()
            }
            for index, row in enumerate(rows)
        ]
        self._tables[name] = {"units": units, "rows": kept}

    def stamp(self, n: int | None = None) -> str:
        """A line for every figure: profile, model and number of seeds."""
        parts = [f"{self.profile} profile"]
        if model := self.parameters.get("model"):
            parts.append(model_name(model))
        if n is None and "seeds" in self.parameters:
            n = len(self.parameters["seeds"])
        if n is not None:
            parts.append(f"n = {n} seed{'s' if n != 1 else ''}")
        return " · ".join(parts)

    def results(self, name: str) -> dict:
        """The finished result of another run of the same profile.

        In an open Jupyter session: of the profile ``laptop``, or of the one that ``MPSTUDY_PROFILE`` names.
        """
        file = self.reports / "results" / f"{name}.json"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in file.parent.glob("*.json"))) or "none"
            raise StudyError(f"no finished run {name!r} in {self.reports.name}; finished: {known}")
        return json.loads(file.read_text(encoding="utf-8"))

    def frame(self, name: str, table: str) -> Any:
        """A table of another run as a pandas DataFrame."""
        import pandas as pd

        tables = self.results(name)["tables"]
        if table not in tables:
            raise StudyError(f"run {name!r} has no table {table!r}; it has: {', '.join(tables) or 'none'}")
        return pd.DataFrame(tables[table]["rows"])

    def finish(self) -> None:
        """Hand everything recorded to the runner. The last line of every notebook."""
        record = {
            "tables": self._tables,
            "stages": self._stages,
            "peak_memory_gb": round(memory.most_held() / 1e9, 3),
            "torch": _torch_facts(self.parameters),
        }
        file = self.work / "partial.json"
        file.write_text(json.dumps(record, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _plain(value: Any, where: str) -> str | float | None:
    """``value`` as something JSON can hold."""
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), None):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' other ways to say missing
        return None
    if not isinstance(value, float):
        raise StudyError(f"{where}: {type(value).__name__} is neither text nor a number")
    if math.isinf(value):
        raise StudyError(f"{where}: infinite")
    return None if math.isnan(value) else value


def _torch_facts(parameters: dict) -> dict | None:
    """Device, number format and threads, if this notebook used torch at all."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    peak = round(memory.most_held("cuda") / 1e9, 3) if gpu else None
    dtype = parameters.get("dtype", str(torch.get_default_dtype()).removeprefix("torch."))
    return {"gpu": gpu, "gpu_peak_memory_gb": peak, "dtype": dtype, "threads": torch.get_num_threads()}
