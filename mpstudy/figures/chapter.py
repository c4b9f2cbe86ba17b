"""What a paper takes from one run of the study: its figures and tables, each with a caption that says what it is of."""

from collections.abc import Sequence

import pandas as pd

from ..store.paths import model_name
from . import look, tables


class Chapter:
    """The results of a finished run, from which the notebook of a paper draws.

    ``run``: the notebook's own recorder (:class:`mpstudy.record.Recorder`), which reads results and whose folders keep
    what is drawn. ``name``: the run that is read; its ``parameters``.
    """

    def __init__(self, run, name: str):
        self._run, self.name = run, name
        result = run.results(name)
        self.notebook, self.parameters, self.tables = result["notebook"], result["parameters"], list(result["tables"])
        contrasts = result["tables"].get("contrasts", {"rows": []})["rows"]
        self._tokens = max((row["tokens"] or 0 for row in contrasts), default=0)

    def frame(self, table: str) -> pd.DataFrame:
        """A table of the run."""
        return self._run.frame(self.name, table)

    @property
    def note(self) -> str:
        """What stands under a figure: profile, model, n and how much text models were read on."""
        return self.note_of()

    def note_of(self, n: int | None = None, read: str | None = None) -> str:
        """The note of a figure that is about ``n`` calibration samples (None: all), on what models ``read`` (None: the
        texts).
        """
        n = len(self.parameters["seeds"]) if n is None else n
        read = f"{self._tokens:,} tokens a text" if read is None and self._tokens else read
        parts = [f"{self._run.profile} profile", model_name(self.parameters["model"]), f"n = {n} calibration samples"]
        return " · ".join([*parts, read] if read else parts)

    def caption(self, text: str) -> str:
        """``text``, and what model, data and profile it is about."""
        p = self.parameters
        size = f"{p['samples']} x {p['length']} calibration tokens" if "samples" in p else "calibration sizes as drawn"
        about = f"Model {model_name(p['model'])}, layers {p['layers']}, {size}, n = {len(p['seeds'])} samples"
        return f"{text} {about}, {self._run.profile} profile."

    def keep_figure(self, name: str, figure, data, text: str) -> None:
        """Save ``figure`` with the ``data`` that it shows and the caption of ``text``."""
        look.save(figure, data, self._run.figures / name, self.caption(text))

    def keep_table(self, name: str, table: pd.DataFrame, text: str, lowest: Sequence[str] = ()) -> pd.DataFrame:
        """Save ``table`` (see :func:`.tables.save`) with the caption of ``text``, and give it back to be shown."""
        tables.save(table, self._run.tables / name, self.caption(text), lowest)
        return table
