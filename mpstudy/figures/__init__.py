"""The study's figures and tables: a module a chapter, one look (:mod:`mpstudy.figures.look`) for all of them.

Each function takes a tidy frame and returns a matplotlib figure.
"""

from . import baselines, claims, cost, data, envelope, instability, look, pruning, recovery, rows, tables
from .chapter import Chapter

__all__ = [
    "Chapter",
    "baselines",
    "claims",
    "cost",
    "data",
    "envelope",
    "instability",
    "look",
    "pruning",
    "recovery",
    "rows",
    "tables",
]
