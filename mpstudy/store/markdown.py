"""Tables in Markdown."""

from collections.abc import Iterable


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table as GitHub shows it, of a ``header`` and ``rows`` of as many cells; bars within them are escaped.

    >>> print(table(["x", "y"], [["|w|", "1"]]))
    | x | y |
    | --- | --- |
    | \\|w\\| | 1 |
    """
    first, *rest = ([str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, ["---"] * len(first), *rest))
