"""The verdicts on the claims, from the tables ``contrasts`` that the runs of a report have recorded.

A row is one contrast: its id (``contrast``), ``estimate``, ``se``, ``df``, the 95 % interval ``low`` to ``high``, ``n``
(seeds or calibration samples), whether it is read on the ``log`` scale (no, where an older report does not say), what
it was evaluated on (``tokens``, ``items``), and ``unit``. Primary claims are judged as one family by Holm's method, the
family being those that are computed; exploratory ones each alone.
"""

from dataclasses import dataclass
from pathlib import Path

from ..errors import StudyError
from .claims import Claim, Declared
from .profiles import Profile, load_profile
from .status import load_result, status
from .wording import claimed, measured, number, p_value

TABLE = "contrasts"
COLUMNS = {"contrast", "estimate", "se", "df", "low", "high", "n", "tokens", "items", "unit"}
NUMBERS = ("estimate", "se", "df", "n")  # of an Estimate
NOT_COMPUTED = "not computed"
TERMINAL = ["claim", "verdict", "measured", "claimed", "n", "p (Holm)", "detectable"]


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict. ``row`` is its contrast, or None with the reason ``why`` the verdict is "not computed".

    ``p`` belongs to the claim alone, ``p_holm`` to the family (None for an exploratory claim). ``detectable`` is the
    distance of the true value from the margin that this test would find, in the unit of the contrast.
    """

    claim: Claim
    verdict: str = NOT_COMPUTED
    row: dict | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    why: str = ""

    @property
    def sentence(self) -> str:
        """What came out, in the words that were declared for this verdict."""
        if self.row is None:
            return f"Not computed: {self.why}."
        values = {name: number(self.row[name], self.claim.difference) for name in ("estimate", "low", "high")}
        values |= {"margin": f"{self.claim.margin:g}", "n": str(self.row["n"]), "unit": self.row["unit"]}
        return self.claim.says[self.verdict].format(**values, detectable=number(self.detectable))

    @property
    def out_of_reach(self) -> bool:
        """Whether equality is not resolved, and an estimate of 0 with this standard error would not be either."""
        from ..stats import Estimate, judge

        if self.claim.test != "equivalent" or self.verdict != "not resolved":
            return False
        at_best = Estimate(0.0, *(self.row[name] for name in NUMBERS[1:]))
        return judge([(at_best, "equivalent", self.claim.margin)])[0].verdict == "not resolved"

    @property
    def label(self) -> str:
        """The verdict, and whether the claim is an exploratory one."""
        return self.verdict if self.claim.primary else f"{self.verdict} (exploratory)"

    @property
    def outcome(self) -> str:
        """The verdict, with the difference that would have been found where there is none."""
        unresolved = self.verdict == "not resolved"
        return f"{self.label}, detectable: {number(self.detectable)}" if unresolved else self.label

    def texts(self) -> dict[str, str]:
        """Everything that is shown of the claim, as text."""
        claim, signed = self.claim, self.claim.difference
        numbers = {name: number((self.row or {}).get(name), signed) for name in ("estimate", "low", "high")}
        return numbers | {
            "id": claim.id,
            "question": claim.question,
            "estimand": claim.estimand,
            "verdict": self.verdict,
            "label": self.label,
            "outcome": self.outcome,
            "measured": measured(self.row, signed),
            "claimed": claimed(claim, self.row),
            "n": str(self.row["n"]) if self.row else "–",
            "p": p_value(self.p_holm if claim.primary else self.p),
            "detectable": number(self.detectable),
            "sentence": self.sentence,
        }

    def line(self) -> list[str]:
        """Its cells under ``TERMINAL``; what is detectable is only told where the claim is not resolved."""
        texts = self.texts()
        detectable = texts["detectable"] if self.verdict == "not resolved" else ""
        return [*(texts[name] for name in ("id", "label", "measured", "claimed", "n", "p")), detectable]

    def as_json(self) -> dict:
        """The claim and all its numbers, unrounded."""
        row = self.row or {}
        return {
            "id": self.claim.id,
            "verdict": self.verdict,
            **{name: row.get(name) for name in ("estimate", "low", "high", "n", "unit")},
            "test": self.claim.test,
            "margin": self.claim.margin,
            "p": self.p,
            "p_holm": self.p_holm,
            "detectable": self.detectable,
            "primary": self.claim.primary,
            "run": self.claim.run,
            "question": self.claim.question,
            "sentence": self.sentence,
        }


def judged(declared: Declared, home: Path, stale: dict[str, str] | None = None) -> list[Judged]:
    """The verdict on every claim by which the report folder ``home`` is judged, from the results in it, or beside it in
    the report of the claim's profile.

    ``stale`` maps claims whose results do not count to the reason, as :func:`stale_claims` does.
    """
    own = declared.of(home.name)
    return _judge(own, _contrasts(own, home, stale or {}))


def stale_claims(declared: Declared, profile: Profile, home: Path) -> dict[str, str]:
    """The claims whose results do not belong to the code and data as they are, by id, each with why."""
    found, own = {}, declared.of(home.name).claims
    for name in dict.fromkeys(claim.profile for claim in own):
        claims = [claim for claim in own if claim.profile == name]
        of_name = load_profile(name, declared.folder / "profiles") if name else profile
        rows = [row for row in status(of_name, claims[0].home(home)) if row["state"] == "stale"]
        why = {row["run"]: f"{row['run']} is stale ({row['reasons'][0]})" for row in rows}
        found |= {claim.id: why[claim.run] for claim in claims if claim.run in why}
    return found


def both_sides(declared: Declared, claim: Claim, old_home: Path, home: Path) -> tuple[Judged, Judged]:
    """The verdict on a claim in the report ``old_home``, and in the same family with its own contrast from ``home``."""
    declared = declared.of(old_home.name)
    old = _contrasts(declared, old_home, {})
    new = old | _contrasts(Declared(declared.folder, (claim,)), home, {})
    return tuple(next(one for one in _judge(declared, side) if one.claim == claim) for side in (old, new))


def _contrasts(declared: Declared, home: Path, stale: dict[str, str]) -> dict[str, dict | str]:
    """The contrast of every claim, by its id, or in words why there is none."""
    places = {claim.id: (claim.home(home), claim.run) for claim in declared.claims}
    results = {place: load_result(*place) for place in set(places.values())}
    return {
        claim.id: stale.get(claim.id) or _contrast(claim, results[places[claim.id]], claim.home(home))
        for claim in declared.claims
    }


def _contrast(claim: Claim, result: dict | None, home: Path) -> dict | str:
    if result is None:
        return f"no result of {claim.run} in the report {home.name}"
    rows = result["tables"].get(TABLE, {}).get("rows", [])
    if rows and (missing := sorted(COLUMNS - rows[0].keys())):
        raise StudyError(f"{claim.run}, table {TABLE}: column {', '.join(missing)} is missing")
    found = [row for row in rows if row["contrast"] == claim.contrast]
    if len(found) > 1:
        raise StudyError(f"{claim.run}, table {TABLE}: {len(found)} rows are named {claim.contrast!r}")
    if not found:
        return f"{claim.run} has recorded no contrast {claim.contrast}"
    if any(found[0][name] is None for name in ("estimate", "se", "df", "low", "high")):
        return f"the contrast {claim.contrast} has no standard error (n = {found[0]['n']})"
    return found[0]


def _judge(declared: Declared, contrasts: dict[str, dict | str]) -> list[Judged]:
    computed = [claim for claim in declared.claims if isinstance(contrasts[claim.id], dict)]
    family = [claim for claim in computed if claim.primary]
    families = [family, *([claim] for claim in computed if not claim.primary)]
    found = {}
    for claims in filter(None, families):
        found |= _judge_family(claims, contrasts)
    return [found.get(claim.id) or Judged(claim, why=contrasts[claim.id]) for claim in declared.claims]


def _judge_family(claims: list[Claim], contrasts: dict[str, dict | str]) -> dict[str, Judged]:
    from ..stats import Estimate, judge  # takes pandas and scipy a second to import

    rows = [contrasts[claim.id] for claim in claims]
    estimates = [Estimate(*(row[name] for name in NUMBERS), log=row.get("log", False)) for row in rows]
    verdicts = judge([(estimate, claim.test, claim.margin) for estimate, claim in zip(estimates, claims, strict=True)])
    return {
        claim.id: Judged(claim, it.verdict, row, it.p, it.p_holm if claim.primary else None, it.detectable)
        for claim, row, it in zip(claims, rows, verdicts, strict=True)
    }
