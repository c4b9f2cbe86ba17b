"""Rows that figures draw, selected from the tables of results."""

import numpy as np
import pandas as pd

from ..pruners import PRUNERS
from ..stability.changes import Change
from ..stats import summarise

PANELS = ("bf16 against fp16", "weights and arithmetic", "other calibration data")


def in_percent(frame: pd.DataFrame, measure: str = "traded") -> pd.DataFrame:
    """The rows of a ``measure``, a share, with ``estimate``, ``low`` and ``high`` in per cent."""
    numbers = ["estimate", "low", "high"]
    rows = frame[frame["measure"] == measure]
    return rows.assign(**{name: 100 * rows[name] for name in numbers})


def primary(declared: dict[str, list], contrasts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What :func:`.claims.forest` draws: those of the ``declared`` contrasts (run, words, unit of the panel and margin
    by the id of each) that the tables ``contrasts`` of the runs hold.
    """
    rows = []
    for claim, (run, words, unit, margin) in declared.items():
        frame = contrasts.get(run, pd.DataFrame(columns=["contrast"]))
        for row in frame[frame["contrast"] == claim].to_dict("records"):
            numbers = {name: row[name] for name in ("estimate", "low", "high", "n")}
            rows.append({"claim": words, "unit": unit, "margin": margin} | numbers)
    return pd.DataFrame(rows)


def bands(steadiness: pd.DataFrame, parameters: dict) -> pd.DataFrame:
    """The bands of :func:`.instability.doses`, from the table ``steadiness`` of the notebook on instability and its
    ``parameters``: Taylor on its sample, and on ``budget`` times the data where the grid has that, called by tokens.
    """
    tokens, budget = parameters["samples"] * parameters["length"], parameters["budget"]
    names = {"taylor": f"{tokens:,} tokens", f"taylor, {budget} times the data": f"{budget * tokens:,} tokens"}
    rows = steadiness[(steadiness["measure"] == "traded") & steadiness["method"].isin(names)]
    return rows.assign(method=rows["method"].map(names))


def traded(agreement: pd.DataFrame, formats: pd.DataFrame, steadiness: pd.DataFrame) -> pd.DataFrame:
    """What :func:`.instability.traded` draws, from three tables of the notebook on instability: before against after
    each change and format against format (means and intervals over seeds), and sample against sample, by panel.
    """
    parts = [(*_place(change), part) for change, part in agreement.groupby("change", sort=False)]
    parts += [(PANELS[0], what, part) for what, part in formats.groupby("what", sort=False)]
    rows = [
        summarise(part, "pruner", "traded").rename(columns={"mean": "estimate"}).assign(panel=panel, change=change)
        for panel, change, part in parts
    ]
    samples = steadiness[steadiness["measure"] == "traded"]
    named = samples["method"].str.partition(", ")
    samples = samples.assign(pruner=named[0], panel=PANELS[2], change="another sample" + named[1] + named[2])
    frame = pd.concat([*rows, samples[list(rows[0])]], ignore_index=True)
    return frame.sort_values("panel", key=lambda names: names.map(PANELS.index), kind="stable")


def formats_band(contrasts: pd.DataFrame | None) -> tuple[float, float] | None:
    """The band of :func:`.data.over_tokens` from the ``contrasts`` of the notebook on instability, if it is read."""
    if contrasts is None:
        return None
    row = contrasts[contrasts["contrast"] == "formats-arithmetic"]
    return (row["low"].item(), row["high"].item()) if len(row) else None


def with_data(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods that use data; the others are too far from Taylor for one scale."""
    return frame[np.array([PRUNERS[method.partition(", ")[0]].needs_data for method in frame["method"]], dtype=bool)]


def at_cost(frame: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the mean ``gradients`` of each ``method`` in ``costs``, without the methods that take none."""
    spent = costs.groupby("method", sort=False)["gradients"].mean().reset_index()
    return frame.merge(spent, on="method").dropna(subset="gradients")


def _place(change: str) -> tuple[str, str]:
    """The panel of a change, and what it is called there."""
    label = Change.parse(change).label.replace("\n", " ")
    if change.startswith(("corpus", "samples", "length")):
        return PANELS[2], label
    return PANELS[1], f"fp32 against {label}"
