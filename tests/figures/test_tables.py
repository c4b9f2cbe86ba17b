"""Tables: what stands in the cells, and what is escaped where."""

import numpy as np
import pandas as pd
import pytest
from helpers.artists import grid

from mpstudy.errors import StudyError
from mpstudy.figures import tables


def test_cells_are_means_with_the_interval_of_the_seeds():
    frame = grid(pruner=["moreau", "l1"], corpus=["wiki", "novel"], seed=[0, 1, 2])
    frame["perplexity"] = [1.0, 2.0, 6.0, 4.0, 5.0, 6.06, 10.0, 11.0, 12.0, 7.0, 7.0, 7.0]
    table = tables.cells(frame, ["pruner"], "corpus", "perplexity", 1)
    assert list(table.columns) == ["pruner", "wiki", "novel"]
    assert table.to_numpy().tolist() == [
        ["moreau", "3.0 [-3.6, 9.6]", "5.0 [2.5, 7.6]"],
        ["l1", "11.0 [8.5, 13.5]", "7.0 [7.0, 7.0]"],
    ]


def test_one_seed_gives_the_value_alone_and_what_was_not_measured_is_empty():
    frame = pd.DataFrame(
        {"pruner": ["l1", "taylor"], "state": "pruned", "task": ["facts", "cloze"], "value": [0.5, 0.25]}
    )
    table = tables.cells(frame, ["pruner", "state"], "task", "value", 2)
    assert table.to_numpy().tolist() == [["l1", "pruned", "0.50", ""], ["taylor", "pruned", "", "0.25"]]


def test_a_wide_table_keeps_the_order_in_which_things_come():
    frame = pd.DataFrame({"method": ["b", "a", "b"], "text": ["wiki", "wiki", "novel"]})
    table = tables.wide(frame, "method", "text", ["1", "2", "3"])
    assert list(table.columns) == ["method", "wiki", "novel"] and table.columns.name is None
    assert table.to_numpy().tolist() == [["b", "1", "3"], ["a", "2", ""]]
    with pytest.raises(StudyError, match="two rows for one cell: method and text do not tell them apart"):
        tables.wide(pd.concat([frame, frame[:1]]), "method", "text", ["1", "2", "3", "4"])


def test_spans_show_the_interval_where_there_is_one():
    frame = pd.DataFrame({"estimate": [0.25, -0.125], "low": [0.2, None], "high": [0.3, None]})
    assert tables.spans(frame, "+.1f", 100) == ["+25.0 [+20.0, +30.0]", "-12.5"]
    assert tables.span({"estimate": 1, "low": 0, "high": 2.04}, ".1f") == "1.0 [0.0, 2.0]"


def test_costs_stand_beside_latencies_in_ms():
    cost = pd.DataFrame({"share": [0.0, 0.5], "parameters": [10, 5], "macs": [2.5e9, 1.234e9]})
    phases = pd.DataFrame({"share": [0.0, 0.0, 0.5], "phase": ["prefill", "decode", "prefill"]})
    table = tables.costs(cost, phases.assign(median_s=[0.25, 0.01, 0.125], low_s=[0.2, 0.009, 0.1], high_s=0.5))
    assert list(table.columns) == ["share", "parameters", "gmacs", "prefill (ms)", "decode (ms)"]
    assert table.to_numpy().tolist() == [
        [0, 10, 2.5, "250 [200, 500]", "10 [9, 500]"],
        [0.5, 5, 1.23, "125 [100, 500]", ""],
    ]


def test_what_a_share_removes_in_words():
    gone = {"removed_model": [0.05, 0.15], "heads_removed": [0.2, 0.2], "channels_removed": [0.125, 0.125]}
    assert tables.removed_words(pd.DataFrame({"share": 0.2} | gone)) == (
        "20%: 10.0% of the model, 20.0% of the heads, 12.5% of the channels"
    )


def test_markdown_escapes_bars_and_leaves_the_missing_empty(tmp_path):
    frame = pd.DataFrame({"||dw||": ["a|b", "c"], "n": [1.5, np.nan]})
    tables.save(frame, tmp_path / "sizes", "Sizes.", lowest=["n"])
    lines = (tmp_path / "sizes.md").read_text().splitlines()
    assert lines == ["| \\|\\|dw\\|\\| | n |", "| --- | --- |", "| a\\|b | **1.5** |", "| c |  |", "", "Sizes."]


def test_a_table_is_saved_in_four_forms(tmp_path):
    frame = pd.DataFrame({"removed (%)": ["50 %", "a_b & c"], "perplexity": [12.5, None]})
    tables.save(frame, tmp_path / "of_all", "At 50 % and more: a_b & #1.")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".md", ".tex", ".txt"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "of_all.csv"), frame)
    latex = (tmp_path / "of_all.tex").read_text()
    assert r"\caption{At 50 \% and more: a\_b \& \#1.}" in latex and r"\label{tab:of-all}" in latex
    assert r"removed (\%) & perplexity \\" in latex and r"50 \% & 12.5" in latex and r"a\_b \& c &  \\" in latex
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert (tmp_path / "of_all.md").read_text() == (
        "| removed (%) | perplexity |\n| --- | --- |\n| 50 % | 12.5 |\n| a_b & c |  |\n\nAt 50 % and more: a_b & #1.\n"
    )
    assert (tmp_path / "of_all.txt").read_text() == "At 50 % and more: a_b & #1.\n"


def test_the_lowest_of_a_column_is_bold_and_wide_tables_are_scaled(tmp_path):
    frame = pd.DataFrame({"method": ["a", "b", "c"], "wiki": ["12.5 [11, 14]", "9.5 [9, 10]", ""], "n": [3, 10, 2]})
    tables.save(frame, tmp_path / "small", "Small.", lowest=["wiki"])
    assert "| b | **9.5 [9, 10]** | 10 |" in (tmp_path / "small.md").read_text()
    tex = (tmp_path / "small.tex").read_text()
    assert tex.count(r"\textbf{") == 1 and r"\textbf{9.5 [9, 10]}" in tex and "resizebox" not in tex
    assert r"\begin{tabular}{llr}" in tex  # an empty cell is no number
    wide = frame.assign(**{f"column {i}": "x" * 30 for i in range(4)})
    tables.save(wide, tmp_path / "wide", "Wide.")
    tex = (tmp_path / "wide.tex").read_text()
    assert tex.index(r"\resizebox{\textwidth}{!}{%") < tex.index(r"\begin{tabular}") and r"\end{tabular}}" in tex
