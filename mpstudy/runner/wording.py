"""How numbers and claims are written wherever they stand: terminal, README and pages."""

from math import floor, log10

from .claims import Claim

DIGITS = 3  # significant ones, of every measured number
SIGNS = {"above": "> ", "below": "< ", "equivalent": "within ± "}


def number(value: float | None, signed: bool = False) -> str:
    """``value`` with three significant digits and no exponent, ``signed`` with its sign; a dash where there is none.

    >>> number(0.01396), number(1234.5), number(2, signed=True), number(-0.5)
    ('0.0140', '1,230', '+2.00', '−0.500')
    """
    if value is None:
        return "–"
    value = float(f"{value:.{DIGITS}g}")
    decimals = max(0, DIGITS - 1 - floor(log10(abs(value)))) if value else 0
    sign = "−" if value < 0 else "+" if signed and value else ""
    return f"{sign}{abs(value):,.{decimals}f}"


def p_value(p: float | None) -> str:
    """A p-value; the smallest are only said to be small."""
    return "< 0.001" if p is not None and p < 0.001 else number(p)


def measured(row: dict | None, signed: bool) -> str:
    """A contrast with its interval and unit, as in ``+0.0140 [+0.0070, +0.0200] Jaccard``; a dash for none."""
    if row is None:
        return number(None)
    value, low, high = (number(row[name], signed) for name in ("estimate", "low", "high"))
    return f"{value} [{low}, {high}] {row['unit']}"


def claimed(claim: Claim, row: dict | None) -> str:
    """What a claim says of its estimate, as in ``< 2 %``."""
    percent = " %" if row is not None and row["unit"].startswith("%") else ""
    return f"{SIGNS[claim.test]}{claim.margin:g}{percent}"


def aligned(rows: list[list[str]]) -> str:
    """Rows of texts as columns for the terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
