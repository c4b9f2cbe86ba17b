"""The questions of the project's own zero-shot tasks, from the tables in ``data`` and the bundled texts.

An item is a plain dict: ``prompt`` (text the model reads), ``choices`` (continuations, without the joining
space), ``label`` (index of the true one) and ``group`` (what it is about, for balance and inspection).
Every function is deterministic: the same files and texts give the same items in the same order.
"""

import csv
import random
import re
from pathlib import Path

from ..errors import StudyError
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

# Cloze lengths in words. Short passages keep an evaluation of many models affordable on a CPU.
PASSAGE_WORDS = (24, 36)
NEXT_WORDS = (6, 14)
MAX_PER_DOCUMENT = 4
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|No|Gen|Sen|Gov|[A-Z])\.$")


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
    return _with_positions(questions, rng)


def agreement_items() -> list[dict]:
    """Minimal pairs "The keys to the cabinet" are / is: a noun of the other number stands before the verb.

    Each frame gives a singular and a plural subject; the two numbers alternate in the order of the items.
    """
    rng = random.Random(SEED)
    singular, plural = [], []
    for index, row in enumerate(_read_table(DATA / "tasks" / "agreement.csv")):
        one, many = VERBS[index % len(VERBS)]
        singular.append((f"The {row['head']} {row['link']} {row['attractors']}", one, [many], "singular"))
        plural.append((f"The {row['heads']} {row['link']} {row['attractor']}", many, [one], "plural"))
    rng.shuffle(singular)
    rng.shuffle(plural)
    return _with_positions([question for pair in zip(singular, plural) for question in pair], rng)


def sentences(paragraph: str) -> list[str]:
    """The sentences of one paragraph, white space normalised; common abbreviations do not end a sentence."""
    joined: list[str] = []
    for piece in SENTENCE_END.split(" ".join(paragraph.split())):
        if joined and ABBREVIATION.search(joined[-1]):
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined


def cloze_items(texts: list[str]) -> list[dict]:
    """Items "which sentence comes next?" from documents ``texts``, at most ``MAX_PER_DOCUMENT`` from each.

    The false choices are equally long sentences that follow other passages, in other documents.
    Raises :class:`StudyError` if the texts are too few or too short for the false choices.
    """
    rng = random.Random(SEED)
    pool = []  # (document, passage, next sentence)
    for document, text in enumerate(texts):
        pairs = _passages(text)
        pool += [(document, *pair) for pair in rng.sample(pairs, min(MAX_PER_DOCUMENT, len(pairs)))]
    rng.shuffle(pool)
    questions = []
    for document, passage, follow in pool:
        false = _false_sentences(document, passage, follow, pool, rng)
        questions.append((passage, follow, false, f"document {document}"))
    return _with_positions(questions, rng)


def _passages(text: str) -> list[tuple[str, str]]:
    """Pairs (passage, sentence after it) that do not overlap, each inside one paragraph of ``text``."""
    pairs = []
    for paragraph in re.split(r"\n\s*\n", text):
        passage: list[str] = []
        for sentence in sentences(paragraph):
            if "[" in sentence:  # an editor's note such as [Applause], not speech
                passage = []
            elif _ends_well(sentence, passage):
                pairs.append((" ".join(passage), sentence))
                passage = []
            else:
                fits = _words([*passage, sentence]) <= PASSAGE_WORDS[1]
                passage = [*passage, sentence] if fits else [sentence]
    return pairs


def _ends_well(sentence: str, passage: list[str]) -> bool:
    """Whether ``sentence`` can be asked for after ``passage``: both of the right length, no repetition."""
    lengths_fit = _is_within(_words(passage), PASSAGE_WORDS) and _is_within(_words([sentence]), NEXT_WORDS)
    return lengths_fit and sentence[-1] in ".!?" and sentence not in " ".join(passage)


def _false_sentences(document: int, passage: str, follow: str, pool: list, rng: random.Random) -> list[str]:
    """Three sentences of other documents, the closest to ``follow`` in length among a random dozen."""
    follows = {sentence for other, _, sentence in pool if other != document and sentence != follow}
    others = sorted(sentence for sentence in follows if sentence not in passage)
    if len(others) < N_OPTIONS - 1:
        raise StudyError(
            f"cloze needs {N_OPTIONS - 1} sentences of other documents that follow a passage of "
            f"{PASSAGE_WORDS[0]} to {PASSAGE_WORDS[1]} words; these texts have {len(others)}"
        )
    drawn = rng.sample(others, min(12, len(others)))
    return sorted(drawn, key=lambda sentence: abs(len(sentence) - len(follow)))[: N_OPTIONS - 1]


def _with_positions(questions: list[tuple], rng: random.Random) -> list[dict]:
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


def _words(parts: list[str]) -> int:
    return sum(len(part.split()) for part in parts)


def _is_within(value: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= value <= bounds[1]
