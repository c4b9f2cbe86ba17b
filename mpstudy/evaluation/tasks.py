"""The zero-shot tasks; imports nothing heavy, so that they can be checked before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path

from ..inputs import hub
from ..registry import Registry


@dataclass(frozen=True)
class Harness:
    """What a task of lm-eval's own is read from: lm-eval's ``file`` below its folder of tasks, and its items, which are
    those of the split that lm-eval scores, from the hub's parquet conversion of ``repo``.
    """

    file: str
    repo: str
    config: str
    split: str


@dataclass(frozen=True)
class Task:
    """A zero-shot task: what it asks, the one metric reported for it, and the accuracy of guessing (0 to 1).
    ``harness`` is for those of the published study; the others are the project's own.
    """

    description: str
    metric: str
    chance: float
    harness: Harness | None = None

    @property
    def source(self) -> hub.Source:
        """Where the items of a task of lm-eval's lie on the hub."""
        files = (f"{self.harness.config}/{self.harness.split}/0000.parquet",)
        revision, split = hub.CONVERTED, self.harness.split
        return hub.Source(self.description, self.harness.repo, revision, split, files, kind="task")


TASKS = Registry("zero-shot task")


def task_files(name: str) -> list[Path]:
    """The files with the items of a task of lm-eval's. Copies and errors: see :func:`mpstudy.inputs.hub.load`."""
    return hub.files_of(name, TASKS[name].source)


# The metric is fixed per task, on the dense model, before any pruning. ``acc`` compares summed
# log-probabilities: right for verbs of one token and for names, where dividing by the length would favour
# "North America" over "Europe". ``acc_norm`` divides them by the length in characters: right for whole
# sentences, where the sum would favour the shortest. The choices of ``order`` hold the same words.
TASKS.add("facts", Task("well-known facts: the true end of a sentence among four", "acc", 0.25))
TASKS.add("agreement", Task("subject-verb agreement across a noun of the other number", "acc", 0.5))
TASKS.add("agreement_far", Task("subject-verb agreement across a clause and three nouns", "acc", 0.5))
TASKS.add("cloze", Task("the next sentence of an address among three of other addresses", "acc_norm", 0.25))
TASKS.add("cloze_same", Task("the next sentence of an address among three of the same one", "acc_norm", 0.25))
TASKS.add("order", Task("which of two sentences of an address comes first", "acc", 0.5))
# The seven of the LLM-Pruner paper with its metrics; their mean is its "average".
# fmt: off
TASKS.add("boolq", Task(
    "yes or no to a question on a passage", "acc", 0.5,
    Harness("super_glue/boolq/default.yaml", "aps/super_glue", "boolq", "validation"),
))
TASKS.add("winogrande", Task(
    "which of two nouns a pronoun means", "acc", 0.5,
    Harness("winogrande/default.yaml", "allenai/winogrande", "winogrande_xl", "validation"),
))
TASKS.add("arc_easy", Task(
    "school science", "acc", 0.25,
    Harness("arc/arc_easy.yaml", "allenai/ai2_arc", "ARC-Easy", "test"),
))
TASKS.add("arc_challenge", Task(
    "school science, the hard part", "acc_norm", 0.25,
    Harness("arc/arc_challenge.yaml", "allenai/ai2_arc", "ARC-Challenge", "test"),
))
TASKS.add("piqa", Task(
    "physical common sense", "acc_norm", 0.5,
    Harness("piqa/piqa.yaml", "baber/piqa", "default", "validation"),
))
TASKS.add("hellaswag", Task(
    "how a scene goes on", "acc_norm", 0.25,
    Harness("hellaswag/hellaswag.yaml", "Rowan/hellaswag", "default", "validation"),
))
TASKS.add("openbookqa", Task(
    "elementary science facts", "acc_norm", 0.25,
    Harness("openbookqa/openbookqa.yaml", "allenai/openbookqa", "main", "test"),
))
# fmt: on
