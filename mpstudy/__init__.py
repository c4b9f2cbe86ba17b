"""mpstudy: a reproducible study of robust pruning of large language models.

Import the module you need (``from mpstudy.structure import units``): this file imports none, so that a
command starts fast. ``mpstudy.load_pruned(folder)`` is
:func:`mpstudy.structure.checkpoint.load_pruned`.
"""

__version__ = "0.1.0"


def __getattr__(name):
    if name == "load_pruned":  # only then are torch and transformers needed
        from .structure.checkpoint import load_pruned

        return load_pruned
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
