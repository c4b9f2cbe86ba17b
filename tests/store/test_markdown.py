"""Tables in Markdown."""

from mpstudy.store.markdown import table


def test_bars_are_escaped_in_every_cell():
    assert table(["x", "||y||"], [["|w · g|", "1"], ["", "2"]]) == (
        "| x | \\|\\|y\\|\\| |\n| --- | --- |\n| \\|w · g\\| | 1 |\n|  | 2 |"
    )
    assert table(["x"], []) == "| x |\n| --- |"
