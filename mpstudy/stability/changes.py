"""How far a pruning decision moves when something changes before the scores are taken.

A *change* is named by its kind and value (:class:`.kinds.Change`). It is a perturbation of the weights or the
arithmetic (:data:`mpstudy.stability.perturb.PERTURBATIONS`), or

* ``sample``: another calibration sample from the same corpus,
* ``corpus-NAME``, ``samples-N``, ``length-N``: another corpus, number of rows, or tokens a row,
* ``pruned-RATIO``: the units that the same scores remove first at that ratio are zero already,
* ``tuned``: weights that the caller gives, such as those after some steps of fine-tuning, in place of the study's.

Each of these is a function ``(study, dose, score, case) -> Scores`` registered in :data:`CHANGES`, where ``score(study,
sample)`` takes the scores and ``case`` says on which sample, with which draw and which given weights.

:func:`scores_under` gives the scores after a change, :func:`mask_agreement` what became of the mask.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import StudyError, check_choice
from ..inputs.corpora import CORPORA
from ..structure.scores import Scores
from ..structure.weights import replaced
from . import agreement, perturb
from .kinds import CHANGES, COUNT, RATIO, Change, Value, forms


@dataclass(frozen=True)
class Case:
    """The calibration ``sample``, the ``draw`` of a random change, and given ``weights`` by the name of the change."""

    sample: int
    draw: int
    weights: dict


def _corpus(name: str) -> str:
    check_choice("corpus", name, {name for name, corpus in CORPORA.items() if corpus.kind == "text"})
    return name


@CHANGES.register("sample", label="other\nsample")
def other_sample(study, dose, score: Callable, case: Case) -> Scores:
    """The sample of the draw."""
    return score(study, case.draw)


@CHANGES.register("corpus", value=Value("NAME", "a corpus", _corpus))
def other_corpus(study, dose: str, score: Callable, case: Case) -> Scores:
    """Calibration on another corpus."""
    return score(study.calibrated(calibration=dose), case.sample)


@CHANGES.register("samples", value=COUNT)
def other_samples(study, dose: int, score: Callable, case: Case) -> Scores:
    """Calibration on another number of rows."""
    return score(study.calibrated(samples=dose), case.sample)


@CHANGES.register("length", value=COUNT)
def other_length(study, dose: int, score: Callable, case: Case) -> Scores:
    """Calibration on rows of another length."""
    return score(study.calibrated(length=dose), case.sample)


@CHANGES.register("pruned", value=RATIO)
def already_pruned(study, dose: float, score: Callable, case: Case) -> Scores:
    """The units that go first are zero."""
    with perturb.zeroed(study.model, study.plan(score(study, case.sample), dose)):
        return score(study, case.sample)


@CHANGES.register("tuned", label="LoRA\nupdate", given=True)
def tuned(study, dose, score: Callable, case: Case) -> Scores:
    """The weights that are given."""
    with replaced(study.model, case.weights["tuned"]):
        return score(study, case.sample)


def check_change(change: str, weights=()) -> None:
    """Raise :class:`StudyError` for a name that is no change, or whose weights are not among the given ``weights``."""
    kind = Change.parse(change).kind
    if kind in CHANGES and CHANGES[kind].given:
        check_choice("change", kind, forms(given=weights))


def scores_under(
    study, change: str, pruner: str, *, sample: int, draw: int = 0, weights: dict | None = None, **settings
) -> Scores:
    """Scores of ``pruner`` on calibration sample ``sample`` after ``change``.

    ``draw``: seed of a random change; for ``sample`` the number of the other sample. ``settings``: the pruner's, and
    its ``seed``. Raises :class:`StudyError` for an unknown change.
    """
    check_change(change, weights or {})
    parsed = Change.parse(change)

    def score(study, sample: int) -> Scores:
        return study.scores(pruner, sample=sample, **settings)

    if parsed.kind in CHANGES:
        return CHANGES[parsed.kind].function(study, parsed.dose, score, Case(sample, draw, weights or {}))
    with perturb.perturbed(change, study.model, draw):
        return score(study, sample)


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
