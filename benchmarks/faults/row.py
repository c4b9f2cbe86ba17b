"""The table of the campaign: a row for each kind of fault."""

from dataclasses import dataclass, field

COUNTS = ("tried", "unclear", "lost", "half", "differing", "left", "executed")


@dataclass
class Row:
    """How often a fault was tried, and how often it did harm. A count that cannot arise is not in ``possible``."""

    kind: str
    possible: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    notes: list[str] = field(default_factory=list)

    def tried(self) -> None:
        self.counts["tried"] += 1

    def harm(self, count: str, note: str) -> None:
        """Count it, and print what it was."""
        self.counts[count] += 1
        self.notes.append(f"{self.kind}: {count}: {note}")
        print(f"  {self.notes[-1]}", flush=True)

    @property
    def harms(self) -> int:
        return sum(self.counts[name] for name in self.possible)

    def markdown(self) -> str:
        shown = [str(self.counts[name]) if name in ("tried", *self.possible) else "–" for name in COUNTS]
        return f"| {self.kind} | {' | '.join(shown)} |"


def table(rows: list[Row]) -> str:
    """The rows as a markdown table."""
    head = f"| fault | {' | '.join(COUNTS)} |\n|---|{'---:|' * len(COUNTS)}"
    return "\n".join([head, *(row.markdown() for row in rows)])
