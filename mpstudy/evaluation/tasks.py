"""The names of the zero-shot tasks; imports nothing heavy, so that they can be checked before anything is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A zero-shot task: the one metric reported for it and the accuracy of guessing (0 to 1). ``harness`` is lm-eval's
    own file, below its folder of tasks, for those of the published study, whose items come from the hub.
    """

    name: str
    metric: str
    chance: float
    description: str
    harness: str | None = None


# The metric is fixed per task, on the dense model, before any pruning. ``acc`` compares summed
# log-probabilities: right for verbs of one token and for names, where dividing by the length would favour
# "North America" over "Europe". ``acc_norm`` divides them by the length in characters: right for whole
# sentences, where the sum would favour the shortest.
_TASKS = (
    Task("facts", "acc", 0.25, "well-known facts: the true end of a sentence among four"),
    Task("agreement", "acc", 0.5, "subject-verb agreement across a noun of the other number"),
    Task("cloze", "acc_norm", 0.25, "the next sentence of an address among three of other addresses"),
    # The seven of the LLM-Pruner paper with its metrics; their mean is its "average".
    Task("boolq", "acc", 0.5, "yes or no to a question on a passage", "super_glue/boolq/default.yaml"),
    Task("winogrande", "acc", 0.5, "which of two nouns a pronoun means", "winogrande/default.yaml"),
    Task("arc_easy", "acc", 0.25, "school science", "arc/arc_easy.yaml"),
    Task("arc_challenge", "acc_norm", 0.25, "school science, the hard part", "arc/arc_challenge.yaml"),
    Task("piqa", "acc_norm", 0.5, "physical common sense", "piqa/piqa.yaml"),
    Task("hellaswag", "acc_norm", 0.25, "how a scene goes on", "hellaswag/hellaswag.yaml"),
    Task("openbookqa", "acc_norm", 0.25, "elementary science facts", "openbookqa/openbookqa.yaml"),
)
TASKS = {task.name: task for task in _TASKS}
