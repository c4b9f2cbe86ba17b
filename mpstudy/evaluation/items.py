"""The questions of the project's own zero-shot tasks that come from the tables in ``data``.

An item is a plain dict: ``prompt`` (text the model reads), ``choices`` (continuations, without the joining
space), ``label`` (index of the true one) and ``group`` (what it is about, for balance and inspection).
Every function is deterministic: the same files and texts give the same items in the same order.
"""

import csv
import random
from collections.abc import Callable
from pathlib import Path

from ..store.paths import DATA

SEED = 20240607
N_OPTIONS = 4

# One sentence opening per fact table, worded so that a base language model would finish it with the answer.
FACT_PROMPTS = {
    "authors": "The author of {subject} is",
    "capitals": "The capital of {subject} is",
    "colors": "The color of {subject} is",
    "continents": "{subject} is a country located in",
    "currencies": "The currency of {subject} is the",
    "elements": "The chemical symbol {subject} stands for",
    "languages": "The main language spoken in {subject} is",
    "opposites": "The opposite of {subject} is",
    "young_animals": "A baby {subject} is called a",
}
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))  # (singular, plural), taken in turn by the frames

# What stands between a subject and its verb in the hard task of agreement: a clause in the past tense, which has no
# number, with two nouns (singular, plural).
PEOPLE = (
    ("teacher", "teachers"),
    ("farmer", "farmers"),
    ("writer", "writers"),
    ("nurse", "nurses"),
    ("pilot", "pilots"),
)
PLACES = (("school", "schools"), ("town", "towns"), ("museum", "museums"), ("hospital", "hospitals"), ("club", "clubs"))
PAST = ("mentioned", "described", "remembered", "wanted", "noticed")


def _read_table(path: Path) -> list[dict]:
    """The rows of a CSV file as dicts of strings."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fact_tables() -> dict[str, list[dict]]:
    """Table name -> rows ``{"subject": str, "answer": str, "also_true": set of str}``.

    ``also_true`` holds the answers of other rows that could pass as true for this subject.
    """
    tables = {name: _read_table(DATA / "facts" / f"{name}.csv") for name in FACT_PROMPTS}
    for row in (row for rows in tables.values() for row in rows):
        row["also_true"] = set(filter(None, row["also_true"].split(";")))
    return tables


def fact_prompt(table: str, subject: str) -> str:
    """The opening of the sentence that asks for a fact about ``subject``."""
    prompt = FACT_PROMPTS[table].format(subject=subject)
    return prompt[0].upper() + prompt[1:]


def fact_items() -> list[dict]:
    """One item per row of the fact tables: its answer among three others of the table that are false here."""
    rng = random.Random(SEED)
    questions = []
    for name, rows in fact_tables().items():
        answers = sorted({row["answer"] for row in rows})
        for row in rows:
            true = {row["answer"], *row["also_true"]}
            false = rng.sample([answer for answer in answers if answer not in true], N_OPTIONS - 1)
            questions.append((fact_prompt(name, row["subject"]), row["answer"], false, name))
    rng.shuffle(questions)
    return with_positions(questions, rng)


def agreement_items() -> list[dict]:
    """Minimal pairs "The keys to the cabinet" are / is: a noun of the other number stands before the verb.

    Each frame gives a singular and a plural subject; the two numbers alternate in the order of the items.
    """
    return _agreement(lambda rng: ("", ""))


def agreement_far_items() -> list[dict]:
    """The same pairs with a clause before the verb: "The key to the cabinets that the teachers from the schools wanted"
    is / are. All three nouns before the verb are of the other number.
    """

    def clause(rng: random.Random) -> tuple[str, str]:
        person, place, verb = rng.choice(PEOPLE), rng.choice(PLACES), rng.choice(PAST)
        one, many = (f" that the {person[number]} from the {place[number]} {verb}" for number in (0, 1))
        return one, many

    return _agreement(clause)


def _agreement(between: Callable[[random.Random], tuple[str, str]]) -> list[dict]:
    """Items of agreement. ``between`` gives what stands before the verb, with singular nouns and with plural ones."""
    rng = random.Random(SEED)
    singular, plural = [], []
    for index, row in enumerate(_read_table(DATA / "tasks" / "agreement.csv")):
        one, many = VERBS[index % len(VERBS)]
        few, several = between(rng)
        singular.append((f"The {row['head']} {row['link']} {row['attractors']}{several}", one, [many], "singular"))
        plural.append((f"The {row['heads']} {row['link']} {row['attractor']}{few}", many, [one], "plural"))
    rng.shuffle(singular)
    rng.shuffle(plural)
    return with_positions([question for pair in zip(singular, plural) for question in pair], rng)


def with_positions(questions: list[tuple], rng: random.Random) -> list[dict]:
    """Make items of (prompt, true choice, false choices, group); every block uses each position once."""
    items: list[dict] = []
    positions: list[int] = []
    for prompt, true, false, group in questions:
        if not positions:
            positions = rng.sample(range(len(false) + 1), len(false) + 1)
        label = positions.pop()
        choices = [*false[:label], true, *false[label:]]
        items.append({"prompt": prompt, "choices": choices, "label": label, "group": group})
    return items
