"""The study's figures and tables: a module a chapter, one look (:mod:`mpstudy.figures.look`) for all of them.

A function of a chapter takes a tidy frame and returns a matplotlib figure; `rows` selects what it draws, `tables` makes
and saves tables, and a :class:`Chapter` reads a finished run and keeps both with captions.
"""

from . import baselines, claims, cost, data, envelope, instability, look, methods, pruning, recovery, rows, tables
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
    "methods",
    "pruning",
    "recovery",
    "rows",
    "tables",
]
