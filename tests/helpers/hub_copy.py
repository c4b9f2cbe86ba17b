"""Made-up items of the seven published tasks and lines of the two texts, as a folder that MPSTUDY_HUB_DIR may name."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

from mpstudy.evaluation.tasks import TASKS


def choices(*texts):
    return {"text": list(texts), "label": list("ABCD"[: len(texts)])}


ITEMS = {
    "boolq": {"question": "is water wet", "passage": "Water is wet.", "idx": 0, "label": 1},
    "winogrande": {"sentence": "The cup fell as _ was loose.", "option1": "it", "option2": "air", "answer": "1"},
    "arc_easy": {"id": "1", "question": "What is hot?", "choices": choices("fire", "ice", "snow"), "answerKey": "A"},
    "arc_challenge": {"id": "1", "question": "What is old?", "choices": choices("now", "then"), "answerKey": "B"},
    "piqa": {"goal": "To cut", "sol1": "use a knife", "sol2": "use a spoon", "label": 0},
    "hellaswag": {
        "ind": 1, "activity_label": "Cooking", "ctx_a": "A man cooks.", "ctx_b": "he", "ctx": "A man cooks. he",
        "endings": ["eats it", "flies", "is a cat", "was not"], "source_id": "1", "split": "val", "split_type": "x",
        "label": "0",
    },
    "openbookqa": {"id": "1", "question_stem": "The sun is", "choices": choices("hot", "cold"), "answerKey": "A"},
}  # fmt: skip
LINES = [f"In {year} the town of <unk> had {year % 89} houses and {year % 7} roads ." for year in range(1700, 1900)]


def write_items(folder: Path, rows: int = 3) -> None:
    """The same item ``rows`` times for each task, some in the hub's layout and format, some as JSON lines."""
    for index, (name, item) in enumerate(ITEMS.items()):
        table = [item | {"row": row} for row in range(rows)]
        source = TASKS[name].source
        path = folder / name / (source.files[0] if index % 2 else f"{source.split}.jsonl")
        path.parent.mkdir(parents=True)
        if index % 2:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")


def write_texts(folder: Path) -> None:
    """WikiText-2 with its blank lines, and Penn Treebank, as raw text."""
    texts = {"wikitext2/wiki.test.raw": " \n ".join(LINES), "ptb/ptb.valid.txt": "\n".join(LINES[::-1])}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")
