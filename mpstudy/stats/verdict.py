"""What the measured numbers say of a family of claims: supported, refuted or not resolved."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import StudyError
from .estimate import Estimate
from .significance import holm

TESTS = ("above", "below", "equivalent")


@dataclass(frozen=True)
class Verdict:
    """``verdict`` is "supported", "refuted" or "not resolved"; ``p`` of the claim alone, ``p_holm`` in its family.

    ``detectable``: the distance of the true value from the margin that a test of this claim alone finds with a
    probability of 80 %. A claim that is "not resolved" may well be true or false by less than that.
    """

    verdict: str
    p: float
    p_holm: float
    detectable: float


def judge(estimates: Sequence[tuple[Estimate, str, float]], level: float = 0.05) -> list[Verdict]:
    """The verdict on each claim (estimate, test, margin) of a family, in the order given.

    The test says what is claimed of the true value: "above" the margin, "below" it, or "equivalent", within -margin and
    margin. Each claim has one p-value. For "above" and "below" it is the two-sided one of "value = margin". For
    "equivalent" it is that of the two one-sided tests where the estimate lies within the margins (it can only support
    the claim), and the two-sided one of the nearer margin where it lies outside (it can only refute it). Where the
    p-value adjusted by :func:`holm` over the family is below ``level``, the side on which the estimate lies decides.

    Example
    -------
    >>> claims = [(Estimate(0.5, 0.1, 5, 6), "above", 0.0), (Estimate(0.01, 0.1, 5, 6), "equivalent", 0.05)]
    >>> [verdict.verdict for verdict in judge(claims)]
    ['supported', 'not resolved']
    """
    judged = [_supports_and_p(*claim) for claim in estimates]
    adjusted = holm([p for _, p in judged]).tolist()
    return [
        Verdict(_word(supports, p_holm < level), p, p_holm, estimate.detectable(level=1 - level))
        for (estimate, _, _), (supports, p), p_holm in zip(estimates, judged, adjusted)
    ]


def _supports_and_p(estimate: Estimate, test: str, margin: float) -> tuple[bool, float]:
    """Whether the estimate lies where the claim says, and the claim's p-value."""
    if test == "equivalent":
        within = abs(estimate.value) < margin
        nearer = margin if estimate.value > 0 else -margin
        return within, estimate.p_equivalence(margin) if within else estimate.p_difference(nearer)
    if test not in TESTS:
        raise StudyError(f"a claim is tested as {', '.join(TESTS)}, not {test!r}")
    supports = estimate.value > margin if test == "above" else estimate.value < margin
    return supports, estimate.p_difference(margin)


def _word(supports: bool, resolved: bool) -> str:
    if not resolved:
        return "not resolved"
    return "supported" if supports else "refuted"
