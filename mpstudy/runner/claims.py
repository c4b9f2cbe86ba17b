"""Claims are data: what the study asks, declared in ``notebooks/claims.yaml`` before a run and judged after it.

claims:
  - id: steadier-channels
    question: Does ... ?       # one sentence
    estimand: Mean over ...    # what varies, and over what the interval runs
    run: 10_perturbation_instability
    profile: gemma             # whose report the run is read from (default: the report that is judged)
    contrast: steadier-channels  # the row of the run's table `contrasts` (default: the id)
    test: above                # the estimate lies above, below, or is equivalent to zero within the margin
    margin: 0                  # in the unit of the contrast
    difference: true           # shown with a sign (default); false for a share
    primary: true              # one of the family that Holm's method adjusts (default); false: exploratory
    says: {supported: ..., refuted: ..., not resolved: ...}  # sentences with {estimate}, {low}, {high} ...
    part: {pruners: [taylor]}  # parameters with which the run still computes this contrast identically
    minutes: {laptop: 3}       # what that part costs in each profile, stated beforehand
    memory_gb: {laptop: 5}
objections:
  - objection: A reviewer's objection.
    claims: [steadier-channels]  # that answer it, none where the study has no answer
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Literal

from ..errors import StudyError, check_choice
from ..parameters import Distinct, Entries, Finite, Flag, NonNegative, Table, Text, checked
from ..store.paths import NOTEBOOKS
from .profiles import Profile, checked_keys, load_profile, typed_parameters, with_needs
from .values import parse_yaml

FILE = "claims.yaml"
PRIMARY_AT_MOST = 12
VERDICTS = ("supported", "refuted", "not resolved")
PLACEHOLDERS = ("estimate", "low", "high", "margin", "n", "detectable", "unit")
_CLAIM = {
    "id": Text,
    "question": Text,
    "estimand": Text,
    "contrast": Text,
    "run": Text,
    "profile": Text,
    "test": Literal["above", "below", "equivalent"],
    "margin": Finite,
    "difference": Flag,
    "primary": Flag,
    "says": Table,
    "part": Table,
    "minutes": Table,
    "memory_gb": Table,
}
_OPTIONAL = {"profile", "contrast", "difference", "primary", "part"}


@dataclass(frozen=True)
class Claim:
    """One claim as it is declared; ``minutes`` and ``memory_gb`` are by profile, all else as in the file."""

    id: str
    question: str
    estimand: str
    run: str
    test: str
    margin: float
    says: dict[str, str]
    minutes: dict[str, float]
    memory_gb: dict[str, float]
    profile: str = ""
    contrast: str = ""
    part: dict = field(default_factory=dict)
    difference: bool = True
    primary: bool = True

    def home(self, judged: Path) -> Path:
        """The report folder that holds its run, where the report ``judged`` is judged: that, or one beside it."""
        return judged.with_name(self.profile) if self.profile and not self.belongs_to(judged.name) else judged

    def belongs_to(self, report: str) -> bool:
        """Whether ``report`` is that of the claim's own profile, or of a part of it."""
        return bool(self.profile) and (report == self.profile or report.startswith(f"{self.profile}-"))


@dataclass(frozen=True)
class Objection:
    """What a reader may object, and the ids of the ``claims`` that answer it."""

    objection: str
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Declared:
    """All claims and objections of the notebooks in ``folder``."""

    folder: Path
    claims: tuple[Claim, ...] = ()
    objections: tuple[Objection, ...] = ()

    def claim(self, name: str) -> Claim:
        """The claim with the id ``name``; StudyError if there is none."""
        known = {claim.id: claim for claim in self.claims}
        check_choice("claim", name, known)
        return known[name]

    def of(self, report: str) -> "Declared":
        """What a report is judged by: that of a profile which claims name, by these alone; any other, by all."""
        own = {claim.id: claim for claim in self.claims if claim.belongs_to(report)}
        if not own:
            return self
        answered = [replace(one, claims=tuple(name for name in one.claims if name in own)) for one in self.objections]
        return replace(self, claims=tuple(own.values()), objections=tuple(one for one in answered if one.claims))


def load_claims(notebooks: Path = NOTEBOOKS) -> Declared:
    """The claims of a folder of notebooks, none where it has no file of them; StudyError for the first bad entry."""
    if not (notebooks / FILE).is_file():
        return Declared(notebooks)
    raw = parse_yaml((notebooks / FILE).read_text(encoding="utf-8"))
    raw = checked_keys(FILE, raw, {"claims": Entries, "objections": Entries}, {"objections"})
    claims = tuple(_claim(f"claim {index}", entry) for index, entry in enumerate(raw["claims"], start=1))
    ids = [claim.id for claim in claims]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise StudyError(f"two claims have the id {twice[0]!r}")
    if (primary := sum(claim.primary for claim in claims)) > PRIMARY_AT_MOST:
        raise StudyError(
            f"at most {PRIMARY_AT_MOST} claims may be primary, not {primary}; name others `primary: false`"
        )
    _check_runs(claims, notebooks / "profiles")
    entries = enumerate(raw.get("objections", []), start=1)
    return Declared(notebooks, claims, tuple(_objection(f"objection {i}", entry, ids) for i, entry in entries))


def _claim(where: str, entry) -> Claim:
    """One claim, all but its run checked."""
    if isinstance(entry, dict) and isinstance(entry.get("id"), str):
        where = f"claim {entry['id']!r}"
    entry = checked_keys(where, entry, _CLAIM, _OPTIONAL)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry["id"]):
        raise StudyError(f"id of {where} may hold small letters and digits, joined by '-', only")
    if not entry["question"].endswith("?"):
        raise StudyError(f"question of {where} must end in '?', not {entry['question']!r}")
    if entry["test"] == "equivalent" and entry["margin"] <= 0:
        raise StudyError(f"margin of {where} must be > 0 where the test is `equivalent`, not {entry['margin']!r}")
    _check_sentences(where, entry["says"])
    for name in ("minutes", "memory_gb"):
        for profile, value in entry[name].items():
            checked(NonNegative, f"{name} of {profile} in {where}", value)
    if entry["minutes"].keys() != entry["memory_gb"].keys():
        raise StudyError(f"minutes and memory_gb of {where} must name the same profiles")
    return Claim(**({"contrast": entry["id"]} | entry))


def _check_sentences(where: str, says: dict) -> None:
    for verdict in says:
        check_choice(f"verdict in says of {where}", verdict, VERDICTS)
    for verdict in VERDICTS:
        if verdict not in says:
            raise StudyError(f"says of {where}: {verdict} is missing")
        what = f"says of {where} if {verdict}"
        try:
            parts = list(Formatter().parse(checked(Text, what, says[verdict])))
        except ValueError as error:
            raise StudyError(f"{what}: {error}") from error
        for _, name, form, conversion in parts:
            if name is not None:
                check_choice(f"placeholder in {what}", name, PLACEHOLDERS)
            if form or conversion:
                raise StudyError(f"{what}: {{{name}}} takes no format; numbers are formatted in one place")


def _check_runs(claims: tuple[Claim, ...], folder: Path) -> None:
    """Every profile for which a claim states its cost has the claim's run, whose notebook knows the part. A claim with
    a profile of its own states its cost there.
    """
    names, profiles = [file.stem for file in folder.glob("*.yaml")], {}
    for claim in claims:
        if claim.profile and [*claim.minutes] != [claim.profile]:
            raise StudyError(f"minutes of claim {claim.id!r} must name its profile {claim.profile!r} and no other")
        for name in claim.minutes:
            check_choice(f"profile in minutes of claim {claim.id!r}", name, names)
            profiles[name] = profiles.get(name) or load_profile(name, folder)
            claim_part(profiles[name], claim)


def _objection(where: str, entry, ids: list[str]) -> Objection:
    entry = checked_keys(where, entry, {"objection": Text, "claims": Distinct[Text]}, set())
    for name in entry["claims"]:
        check_choice(f"claim in {where}", name, ids)
    return Objection(entry["objection"], tuple(entry["claims"]))


def claim_part(profile: Profile, claim: Claim) -> Profile:
    """What a claim takes of a profile, as a profile ``<name>-<id>``: its run with the overrides of its ``part``, and
    the runs that this needs, those with ``quick`` parameters in their affordable part.
    """
    check_choice(f"run of claim {claim.id!r} in profile {profile.name}", claim.run, [run.name for run in profile.runs])
    runs = []
    for run in with_needs(profile, claim.run).runs:
        changes, minutes = run.quick or {}, run.quick_minutes
        if run.name == claim.run:
            changes, minutes = claim.part, claim.minutes.get(profile.name, run.minutes)
        parameters = typed_parameters(run.notebook, run.parameters | changes)
        runs.append(replace(run, parameters=parameters, minutes=minutes))
    memory = claim.memory_gb.get(profile.name, profile.memory_gb)
    return replace(profile, name=f"{profile.name}-{claim.id}", description="", memory_gb=memory, runs=tuple(runs))
