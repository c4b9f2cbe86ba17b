"""How far a pruning decision moves when something changes before the scores are taken.

A *change* is the name of a perturbation of the weights or the arithmetic
(:data:`mpstudy.stability.perturb.PERTURBATIONS`), or

* ``sample``: another calibration sample from the same corpus,
* ``corpus-NAME``, ``samples-N``, ``length-N``: another corpus, number of rows, or tokens a row,
* ``pruned-RATIO``: the units that the same scores remove first at that ratio are zero already,
* a name among ``weights``: a model's weights in place of the study's, such as those after some steps of fine-tuning.

:func:`scores_under` gives the scores after a change, :func:`mask_agreement` what became of the mask.
"""

from contextlib import contextmanager

import numpy as np

from ..errors import StudyError, check_choice
from ..inputs.corpora import CORPORA
from ..structure.scores import Scores
from ..structure.weights import replaced
from . import agreement, perturb

CALIBRATION = {"corpus": ("calibration", str), "samples": ("samples", int), "length": ("length", int)}


def check_change(change: str, weights=()) -> None:
    """Raise :class:`StudyError` for a name that is no change."""
    kind, _, value = str(change).partition("-")
    if kind == "corpus":
        check_choice("corpus", value, {name for name, corpus in CORPORA.items() if corpus.kind == "text"})
    elif kind in ("samples", "length", "pruned") and not _is_number(value, whole=kind != "pruned"):
        allowed = "a ratio in (0, 1)" if kind == "pruned" else "a whole number of at least 2"
        raise StudyError(f"change {change!r} needs {allowed} after its dash")
    elif kind not in ("samples", "length", "pruned", "corpus"):
        more = ["sample", "corpus-NAME", "samples-N", "length-N", "pruned-RATIO", *weights]
        check_choice("change", change, [*perturb.PERTURBATIONS, *more])


def _is_number(text: str, whole: bool) -> bool:
    try:
        return int(text) >= 2 if whole else 0 < float(text) < 1
    except ValueError:
        return False


def scores_under(
    study, change: str, pruner: str, *, sample: int, draw: int = 0, weights: dict | None = None, **settings
) -> Scores:
    """Scores of ``pruner`` on calibration sample ``sample`` after ``change``.

    ``draw``: seed of a random change; for ``sample`` the number of the other sample. ``settings``: the pruner's, and
    its ``seed``. Raises :class:`StudyError` for an unknown change.
    """
    check_change(change, weights or {})
    if change == "sample":
        return study.scores(pruner, sample=draw, **settings)
    kind, _, value = change.partition("-")
    if kind in CALIBRATION:
        name, parse = CALIBRATION[kind]
        return study.calibrated(**{name: parse(value)}).scores(pruner, sample=sample, **settings)
    with _changed(study, change, pruner, sample, draw, weights or {}, settings):
        return study.scores(pruner, sample=sample, **settings)


@contextmanager
def _changed(study, change, pruner, sample, draw, weights, settings):
    value = change.partition("-")[2]
    if change in perturb.PERTURBATIONS:
        context = perturb.perturbed(change, study.model, draw)
    elif change in weights:
        context = replaced(study.model, weights[change])
    else:
        plan = study.plan(study.scores(pruner, sample=sample, **settings), float(value))
        context = perturb.zeroed(study.model, plan)
    with context:
        yield


def mask_agreement(study, before: Scores, after: Scores, ratio: float) -> dict[str, float]:
    """How much of a mask stays: measures of :mod:`mpstudy.stability.agreement` at ``ratio``, over all pruned layers.

    ``jaccard`` with its ``chance`` value, ``corrected`` (chance-corrected overlap), rank correlations ``spearman`` and
    ``kendall``, ``score_change`` (relative l2), ``margin`` (median over layers and kinds of the margin at the cut of
    ``before``).
    """
    old, new = (study.plan(scores, ratio).mask() for scores in (before, after))
    removed = {key: len(indices) for key, indices in old.items()}
    margins = list(agreement.cut_margin(before.values, removed).values())
    return {
        "jaccard": agreement.jaccard(old, new),
        "chance": agreement.expected_jaccard(removed, study.units.counts),
        "corrected": agreement.chance_corrected_overlap(old, new, study.units.counts),
        "spearman": agreement.spearman(before.values, after.values),
        "kendall": agreement.kendall(before.values, after.values),
        "score_change": agreement.relative_change(before.values, after.values),
        "margin": float(np.median(margins)) if margins else float("nan"),
    }


def log_scores(scores: Scores) -> dict[str, np.ndarray]:
    """Natural logarithms of the scores, each unit set's own mean taken off: what decides the order within a layer.

    Raises :class:`StudyError` for scores of zero, which have no logarithm.
    """
    found = {}
    for key, values in scores.values.items():
        values = np.asarray(values, dtype=np.float64)
        if not (values > 0).all():
            raise StudyError(f"scores of {key!r} hold a value <= 0, which has no logarithm")
        found[key] = np.log(values) - np.log(values).mean()
    return found
