"""How far a pruning decision moves when something changes before the scores are taken.

A *change* is named by its kind and value (:class:`.kinds.Change`). It is a perturbation of the weights or the
arithmetic (:data:`mpstudy.stability.perturb.PERTURBATIONS`), or

* ``sample``: another calibration sample from the same corpus,
* ``corpus-NAME``, ``samples-N``, ``length-N``: another corpus, number of rows, or tokens a row,
* ``pruned-SHARE``: the units that the same scores remove first at that share of the parameters are zero already.

Each of these is a function ``(study, dose, score, case) -> Scores`` registered in :data:`CHANGES`, where ``score(study,
sample)`` takes the scores and ``case`` says on which sample and with which draw.

:func:`scores_under` gives the scores after a change, :func:`mask_agreement` what became of the mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ..errors import StudyError, check_choice
from ..inputs.corpora import CORPORA
from ..structure.scores import Scores
from . import agreement, perturb
from .kinds import CHANGES, COUNT, SHARE, Change, Value


@dataclass(frozen=True)
class Case:
    """The calibration ``sample``, and the ``draw`` of a random change."""

    sample: int
    draw: int


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


@CHANGES.register("pruned", value=SHARE)
def already_pruned(study, dose: float, score: Callable, case: Case) -> Scores:
    """The units that go first, a share of the parameters, are zero."""
    with perturb.zeroed(study.model, study.plan(score(study, case.sample), dose)):
        return score(study, case.sample)


def scores_under(study, change: str, pruner: str, *, sample: int, draw: int = 0, **settings) -> Scores:
    """Scores of ``pruner`` on calibration sample ``sample`` after ``change``.

    ``draw``: seed of a random change; for ``sample`` the number of the other sample. ``settings``: the pruner's, and
    its ``seed``. Raises :class:`StudyError` for an unknown change.
    """
    parsed = Change.parse(change)

    def score(study, sample: int) -> Scores:
        return study.scores(pruner, sample=sample, **settings)

    if parsed.kind in CHANGES:
        return CHANGES[parsed.kind].function(study, parsed.dose, score, Case(sample, draw))
    with perturb.perturbed(change, study.model, draw):
        return score(study, sample)


def mask_agreement(study, before: Scores, after: Scores, share: float) -> dict[str, float]:
    """How much of a mask stays when ``share`` of the parameters goes: measures of :mod:`mpstudy.stability.agreement`.

    ``traded``: the part of the removed units that trade places (1 - overlap). Then for attention ``heads`` and MLP
    ``channels`` apart, each over all pruned layers: ``jaccard_heads``, ``jaccard_channels``; ``chance_`` the Jaccard
    index of random masks; ``corrected_`` the chance-corrected overlap; ``kendall_`` the rank correlation of the scores,
    which no ratio and no scale enters. ``score_change``: relative l2 norm, over both kinds. A kind of which nothing
    goes has no ``jaccard_``, ``chance_`` and ``corrected_``, and one without an order, such as a single head group a
    layer, no ``kendall_``: these measures are left out.
    """
    old, new = (study.plan(scores, share).mask() for scores in (before, after))
    found = {
        "traded": 1 - agreement.overlap(old, new),
        "score_change": agreement.relative_change(before.values, after.values),
    }
    for kind, name in (("attention", "heads"), ("mlp", "channels")):
        keys = [key for key in old if study.units[key].kind == kind]
        found |= {f"{measure}_{name}": value for measure, value in _of_kind(study, keys, old, new).items()}
        values = [{key: scores.values[key] for key in keys} for scores in (before, after)]
        if _have_order(values):
            found[f"kendall_{name}"] = agreement.kendall(*values)
    return found


def _have_order(scores: list[dict]) -> bool:
    """Whether there are scores, more than one under each key and not all equal."""
    return bool(scores[0]) and all(len(set(values.tolist())) > 1 for each in scores for values in each.values())


def _of_kind(study, keys: list[str], old: dict, new: dict) -> dict[str, float]:
    removed = {key: len(old[key]) for key in keys}
    if not sum(removed.values()):
        return {}
    counts = {key: study.units.counts[key] for key in keys}
    first, second = ({key: mask[key] for key in keys} for mask in (old, new))
    return {
        "jaccard": agreement.jaccard(first, second),
        "chance": agreement.expected_jaccard(removed, counts),
        "corrected": agreement.chance_corrected_overlap(first, second, counts),
    }


def pair_agreement(study, scores: dict[int, Scores], share: float) -> list[dict]:
    """:func:`mask_agreement` of every pair of calibration samples, a row each, with their numbers as ``first`` and
    ``second``.
    """
    return [
        {"first": first, "second": second} | mask_agreement(study, scores[first], scores[second], share)
        for first, second in combinations(scores, 2)
    ]


def by_pair(rows: pd.DataFrame, measure: str) -> dict[tuple[int, int], float]:
    """A measure of the rows of :func:`pair_agreement` by pair, as :func:`mpstudy.stats.of_pairs` takes it."""
    return {(row["first"], row["second"]): row[measure] for row in rows.to_dict("records")}


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
