"""The names of the zero-shot tasks; imports nothing heavy, so that they can be checked before anything is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A zero-shot task: the one metric reported for it and the accuracy of guessing (0 to 1)."""

    name: str
    metric: str
    chance: float
    description: str


# The metric is fixed per task, on the dense model, before any pruning. ``acc`` compares summed
# log-probabilities: right for verbs of one token and for names, where dividing by the length would favour
# "North America" over "Europe". ``acc_norm`` divides them by the length in characters: right for whole
# sentences, where the sum would favour the shortest.
_TASKS = (
    Task("facts", "acc", 0.25, "well-known facts: the true end of a sentence among four"),
    Task("agreement", "acc", 0.5, "subject-verb agreement across a noun of the other number"),
    Task("cloze", "acc_norm", 0.25, "the next sentence of an address among three of other addresses"),
)
TASKS = {task.name: task for task in _TASKS}
