"""The findings in words: README's block, the landing page and the table of objections, filled from the verdicts.

The prose stands in ``notebooks/findings.md.j2``, a jinja2 template with a block ``abstract`` (plain text, which the
landing page shows too). It sees ``claims`` (texts of each claim by its id, as ``claims["sign-error"].sentence``),
``profile``, how many ``tokens`` of a text and ``samples`` stand behind the perplexities among them ("1,524 to 2,540"),
which claims of equality were ``out_of_reach``, and the finished tables ``verdicts`` and ``objections``.
"""

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import StudyError
from ..store import markdown
from ..store.files import write_atomically
from .claims import Declared
from .judged import NOT_COMPUTED, Judged, judged
from .profiles import load_profile
from .status import result_file

TEMPLATE = "findings.md.j2"
NO_ANSWER = "No claim answers this."
BEGIN, END = "<!-- findings -->", "<!-- /findings -->"
QUOTED = ("full", "laptop")  # the profiles that README quotes, once their reports are whole


@dataclass(frozen=True)
class Findings:
    """What a report says of the claims, and what other reports say ``beside`` it."""

    declared: Declared
    profile: str
    judged: tuple[Judged, ...]
    beside: tuple["Findings", ...] = ()

    @property
    def claims(self) -> list[dict]:
        """The texts of every claim, and ``command`` and ``cost`` of computing it alone."""
        return [one.texts() | self._price(one) for one in self.judged]

    @property
    def objections(self) -> list[dict]:
        """Every ``objection`` with the ``claims`` that answer it, as texts."""
        known = {texts["id"]: texts for texts in self.claims}
        return [
            {"objection": one.objection, "claims": [known[name] for name in one.claims]}
            for one in self.declared.objections
        ]

    @property
    def abstract(self) -> str:
        """The abstract in one line of plain text; empty where the notebooks have no template."""
        if not (self.declared.folder / TEMPLATE).is_file():
            return ""
        return " ".join(self._rendered("abstract").split())

    def markdown(self) -> str:
        """README's block, without its marks."""
        return self._rendered().strip() + "\n"

    def _price(self, one: Judged) -> dict[str, str]:
        profile = one.claim.profile or self.profile
        minutes, memory = (values.get(profile) for values in (one.claim.minutes, one.claim.memory_gb))
        command = f"python -m mpstudy reproduce --profile {profile} --claim {one.claim.id}"
        return {"command": command, "cost": f"{minutes:g} min, {memory:g} GB" if minutes is not None else "–"}

    def _rendered(self, block: str | None = None) -> str:
        """The template, or one of its blocks."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self.declared.folder),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"paragraph": _paragraph, "bullet": _bullet}
        try:
            template = environment.get_template(TEMPLATE)
            context = template.new_context(self._context())
            return "".join((template.blocks[block] if block else template.root_render_func)(context))
        except jinja2.TemplateError as error:
            raise StudyError(f"{TEMPLATE}: {error}") from error

    def _context(self) -> dict:
        others = [[_in_short(one) for one in other.judged] for other in self.beside]
        rows = [
            [f"`{one['id']}`: {one['question']}", one["measured"], one["claimed"], one["outcome"], *elsewhere]
            for one, *elsewhere in zip(self.claims, *others, strict=True)
        ]
        header = ["claim", "measured", "claimed", "verdict", *(f"in `{other.profile}`" for other in self.beside)]
        answers = [[one["objection"], *_answers(one["claims"])] for one in self.objections]
        of_perplexity = [one.row for one in self.judged if one.row and one.row["tokens"]]
        return {
            "profile": self.profile,
            "tokens": _range([row["tokens"] for row in of_perplexity]),
            "samples": _range([row["n"] for row in of_perplexity]),
            "out_of_reach": ", ".join(f"`{one.claim.id}`" for one in self.judged if one.out_of_reach),
            "claims": {texts["id"]: texts for texts in self.claims},
            "verdicts": markdown.table(header, rows),
            "objections": markdown.table(["objection", "claim", "verdict", "answer"], answers),
        }


def findings(declared: Declared, home: Path) -> Findings:
    """What the results in the report folder ``home`` say, as they lie there."""
    return Findings(declared.of(home.name), home.name, tuple(judged(declared, home)))


def of_readme(declared: Declared, reports: Path) -> Findings:
    """What README says: the findings of the first report that it quotes, the others beside them."""
    first, *others = (findings(declared, reports / name) for name in quoted(declared, reports))
    return replace(first, beside=tuple(others))


def shown(declared: Declared, home: Path) -> Findings | None:
    """The findings of a report that has computed at least one claim, else None: a page has nothing to show."""
    found = findings(declared, home)
    return found if any(one.verdict != NOT_COMPUTED for one in found.judged) else None


def quoted(declared: Declared, reports: Path) -> list[str]:
    """The names of the profiles whose reports README quotes: of ``QUOTED`` those that hold every run, or the last."""
    profiles = declared.folder / "profiles"
    there = [name for name in QUOTED if (profiles / f"{name}.yaml").is_file()]
    whole = [
        name
        for name in there
        if all(result_file(reports / name, run.name).is_file() for run in load_profile(name, profiles).runs)
    ]
    return whole or [QUOTED[-1]]


def block(readme: Path) -> str | None:
    """What stands between the marks of a README, None where it has none; StudyError where they do not match."""
    text = readme.read_text(encoding="utf-8")
    if (text.count(BEGIN), text.count(END)) == (0, 0):
        return None
    before, _, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not end or BEGIN in inside + after or END in before + after:
        raise StudyError(f"{readme.name} must hold {BEGIN} and {END} once, in this order")
    return inside.strip() + "\n"


def write_block(readme: Path, text: str) -> bool:
    """Put ``text`` between the marks of a README; False, and nothing done, where it has none."""
    if block(readme) is None:
        return False
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(readme, f"{before}{BEGIN}\n{text}{END}{after}")
    return True


def _in_short(one: Judged) -> str:
    """What another report measured; nothing of a claim that neither of the two decides."""
    return "–" if one.claim.profile else "{measured}: {outcome}".format(**one.texts())


def _answers(claims: list[dict]) -> list[str]:
    """Ids, verdicts and sentences of the claims that answer an objection, one a line of a table's cell."""
    if not claims:
        return ["–", "–", NO_ANSWER]
    return ["<br>".join(one[name] for one in claims) for name in ("id", "label", "sentence")]


def _range(counts: list[int]) -> str:
    """From the lowest to the highest."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)})) if counts else "–"


def _paragraph(text: str, mark: str = "") -> str:
    """Text in lines of at most 120 characters."""
    return textwrap.fill(
        " ".join(text.split()),
        120,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _bullet(text: str) -> str:
    """Text as an entry of a list."""
    return _paragraph(text, "* ") + "\n"
