"""Questions on running text: which sentence comes next, and in which order two sentences come.

The items are like those of :mod:`mpstudy.evaluation.items`, made of documents that the caller gives: again the same
texts give the same items in the same order.
"""

import random
import re
from collections.abc import Iterator

from ..errors import StudyError
from .items import N_OPTIONS, SEED, with_positions

# Lengths in words. Short passages keep an evaluation of many models affordable on a CPU.
PASSAGE_WORDS = (24, 36)
NEXT_WORDS = (6, 14)
MAX_PER_DOCUMENT = 4
MAX_ORDERS_PER_DOCUMENT = 6
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|No|Gen|Sen|Gov|[A-Z])\.$")


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
    return with_positions(questions, rng)


def cloze_same_items(texts: list[str]) -> list[dict]:
    """Items "which sentence comes next?" like those of :func:`cloze_items`, but the false choices are equally long
    sentences of the *same* document, so that its topics and its style give nothing away.
    """
    rng = random.Random(SEED)
    questions = {}  # by passage: some are said in two addresses
    for document, text in enumerate(texts):
        found = dict.fromkeys(each for paragraph in _paragraphs(text) for each in sentences(paragraph))
        usable = [each for each in found if _is_choice(each)]
        pairs = _passages(text)
        for passage, follow in rng.sample(pairs, min(MAX_PER_DOCUMENT, len(pairs))):
            others = [each for each in usable if each != follow and each not in passage]
            if len(others) >= N_OPTIONS - 1:
                questions[passage] = (passage, follow, _alike(follow, others, rng), f"document {document}")
    shuffled = rng.sample(list(questions.values()), len(questions))
    return with_positions(shuffled, rng)


def order_items(texts: list[str]) -> list[dict]:
    """Items "in which order do the next two sentences come?": the choices are the two sentences as they stand in the
    document and the same two the other way round, so both hold the same words. At most ``MAX_ORDERS_PER_DOCUMENT`` from
    each document.
    """
    rng = random.Random(SEED)
    questions = []
    for document, text in enumerate(texts):
        found = list(_triples(text))
        for before, first, second in rng.sample(found, min(MAX_ORDERS_PER_DOCUMENT, len(found))):
            questions.append((before, f"{first} {second}", [f"{second} {first}"], f"document {document}"))
    rng.shuffle(questions)
    return with_positions(questions, rng)


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _passages(text: str) -> list[tuple[str, str]]:
    """Pairs (passage, sentence after it) that do not overlap, each inside one paragraph of ``text``."""
    pairs = []
    for paragraph in _paragraphs(text):
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


def _triples(text: str) -> Iterator[tuple[str, str, str]]:
    """Three different short sentences in a row, each triple inside one paragraph of ``text``, without overlap."""
    for paragraph in _paragraphs(text):
        run: list[str] = []
        for sentence in sentences(paragraph):
            run = [*run, sentence] if _is_choice(sentence) and sentence not in run else []
            if len(run) == 3:
                yield run[0], run[1], run[2]
                run = []


def _ends_well(sentence: str, passage: list[str]) -> bool:
    """Whether ``sentence`` can be asked for after ``passage``: both of the right length, no repetition."""
    return _is_within(_words(passage), PASSAGE_WORDS) and _is_choice(sentence) and sentence not in " ".join(passage)


def _is_choice(sentence: str) -> bool:
    """Whether a whole sentence is of the length of a choice and no editor's note."""
    return _is_within(_words([sentence]), NEXT_WORDS) and sentence[-1] in ".!?" and "[" not in sentence


def _false_sentences(document: int, passage: str, follow: str, pool: list, rng: random.Random) -> list[str]:
    """Three sentences of other documents that are like ``follow`` in length."""
    follows = {sentence for other, _, sentence in pool if other != document and sentence != follow}
    others = sorted(sentence for sentence in follows if sentence not in passage)
    if len(others) < N_OPTIONS - 1:
        raise StudyError(
            f"cloze needs {N_OPTIONS - 1} sentences of other documents that follow a passage of "
            f"{PASSAGE_WORDS[0]} to {PASSAGE_WORDS[1]} words; these texts have {len(others)}"
        )
    return _alike(follow, others, rng)


def _alike(follow: str, others: list[str], rng: random.Random) -> list[str]:
    """Three of ``others``, the closest to ``follow`` in length among a random dozen."""
    drawn = rng.sample(others, min(12, len(others)))
    return sorted(drawn, key=lambda sentence: abs(len(sentence) - len(follow)))[: N_OPTIONS - 1]


def _words(parts: list[str]) -> int:
    return sum(len(part.split()) for part in parts)


def _is_within(value: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= value <= bounds[1]
