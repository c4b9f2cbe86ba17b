"""Checks of notebook parameters by their names, before any long work starts.

The runner calls :func:`validate` on the parameters of every run of a profile before the first one begins. What the
checks need (models' configs, corpora) is imported only for the parameters that are there.
"""

import math

from ..errors import StudyError, check_choice

COUNTS = ("samples", "windows", "task_items", "validation_rows", "new_tokens", "tuning_rows", "repeats")
COUNTS += ("max_steps", "release_steps", "budget", "pruning_steps", "sparse_samples")
LOWEST = dict.fromkeys(COUNTS, 1) | {"length": 2, "sparse_length": 2, "window": 2}  # tokens; the first is not predicted


def validate(parameters: dict) -> None:
    """Raise :class:`StudyError` for the first parameter that cannot be used; names without a rule pass."""
    for name, value in parameters.items():
        if name in LOWEST and not (type(value) is int and value >= LOWEST[name]):
            raise StudyError(f"{name} must be a whole number of at least {LOWEST[name]}, not {value!r}")
        if name in RULES:
            RULES[name](value)
    _check_recipe(parameters)
    if "model" in parameters:
        _check_model(parameters)
    if {"corpora", "window"} <= parameters.keys():
        _check_windows(parameters["corpora"], parameters["window"])
    if {"instructions", "row_counts", "validation_rows"} <= parameters.keys():
        _check_rows(parameters["instructions"], max(parameters["row_counts"]) + parameters["validation_rows"])


def _each(check):
    def check_all(values) -> None:
        if not isinstance(values, (list, tuple)) or not values:
            raise StudyError(f"a list of names or numbers is needed, with at least one, not {values!r}")
        if any(value in values[:index] for index, value in enumerate(values)):
            raise StudyError(f"{values!r} names something twice")
        for value in values:
            check(value)

    return check_all


def _pruner(name) -> None:
    from ..pruners import PRUNERS

    check_choice("pruner", name, PRUNERS)


def _corpus(name, kind="text") -> None:
    from ..inputs.corpora import CORPORA

    check_choice("corpus", name, {c for c, corpus in CORPORA.items() if corpus.kind == kind})


def _change(name) -> None:
    from ..stability.changes import check_change

    check_change(name, weights=("tuned",))


def _crossed(seeds) -> None:
    _each(_seed)(seeds)
    if len(seeds) < 2:
        raise StudyError(f"crossed needs at least two seeds, not {seeds!r}")


def _task(name) -> None:
    from ..evaluation.tasks import TASKS, task_files

    if TASKS[name].harness:
        task_files(name)


def _row_counts(values) -> None:
    _each(lambda value: None)(values)
    if not all(type(value) is int and value >= 1 for value in values) or list(values) != sorted(values):
        raise StudyError(f"row_counts must be whole numbers of at least 1, in rising order, not {values!r}")


def _reference(name) -> None:
    from ..inputs.models import load_config

    load_config(name)


def _length(value) -> None:
    if not (type(value) is int and value >= LOWEST["length"]):
        raise StudyError(f"lengths must be whole numbers of at least {LOWEST['length']}, not {value!r}")


def _ratio(value) -> None:
    from ..structure.plan import check_ratio

    check_ratio(value)


def _seed(value) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise StudyError(f"a seed must be a whole number >= 0, not {value!r}")


def _positive(name: str):
    def check(value) -> None:
        if not (_finite(value) and value > 0):
            raise StudyError(f"{name} must be finite and > 0, not {value!r}")

    return check


def _eta(value) -> None:
    if not (_finite(value) and value >= 0):
        raise StudyError(f"eta must be finite and >= 0, not {value!r}")


def _solver(name) -> None:
    from ..gradients.envelope import SOLVERS

    check_choice("solver", name, SOLVERS)


def _finite(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _layers(value) -> None:
    from ..structure.units import HIDDEN, ranges

    if value != HIDDEN:
        ranges(value, None)


def _sparsity(value) -> None:
    from ..sparse.masks import Target

    Target.parse(value)


def _method(name) -> None:
    from ..sparse import METHODS
    from ..sparse.importance import ELEMENTWISE

    check_choice("method", name, {*METHODS, *ELEMENTWISE} - {"masked"})


def _none_or_each(check):
    return lambda values: values == [] or _each(check)(values)


RULES = {
    "pruner": _pruner,
    "pruners": _each(_pruner),
    "compared": _each(_pruner),
    "rivals": _each(_pruner),
    "changes": _each(_change),
    "compared_changes": _each(_change),
    "common_changes": _each(_change),
    "crossed": _crossed,
    "calibration": _corpus,
    "corpora": _each(_corpus),
    "instructions": lambda name: _corpus(name, "instructions"),
    "tasks": _each(_task),
    "ratio": _ratio,
    "ratios": _each(_ratio),
    "seeds": _each(_seed),
    "layers": _layers,
    "rho": _positive("rho"),
    "rhos": _each(_positive("rho")),
    "radii": _each(_positive("rho")),
    "lengths": _each(_length),
    "row_counts": _row_counts,
    "references": _none_or_each(_reference),
    "methods": _each(_method),
    "updated": _none_or_each(_method),
    "sparsities": _each(_sparsity),
    "shown": _sparsity,
    "precision": _positive("precision"),
    "noise": _positive("noise"),
    "solvers": _each(_solver),
    "eta": _eta,
}


def _check_recipe(parameters: dict) -> None:
    names = {"lr", "epochs", "batch_size", "micro_batch_size", "warmup_steps", "cutoff", "dropout"}
    given = {name: parameters[name] for name in names & parameters.keys()}
    if given:
        from ..recovery.recipe import Recipe

        recipe = Recipe(**given)
        for count in parameters.get("row_counts", []):
            recipe.steps(count)


def _check_model(parameters: dict) -> None:
    """Family, layer range and ratios against the model's configuration."""
    from ..inputs.models import load_config
    from ..structure.families import sizes
    from ..structure.plan import removed_count
    from ..structure.units import HIDDEN, ranges

    config = load_config(parameters["model"])
    kinds = sizes(config)
    if parameters.get("layers", HIDDEN) != HIDDEN:
        ranges(parameters["layers"], config.num_hidden_layers)
    for ratio in [parameters.get("ratio", 0), *parameters.get("ratios", [])]:
        for kind, (units, width) in kinds.items():
            if removed_count(units, width, ratio) == units:
                raise StudyError(
                    f"ratio {ratio} removes all {kind} of a layer of {parameters['model']}; use a smaller ratio"
                )


def _check_windows(corpora, window) -> None:
    """A token holds at least one character, so fewer characters than the window can never fill it."""
    from ..inputs.corpora import load_texts

    for name in corpora:
        if sum(len(text) for text in load_texts(name)[:1000]) < window:
            raise StudyError(f"corpus {name!r} is too short for a window of {window} tokens")


def _check_rows(instructions, wanted) -> None:
    from ..inputs.corpora import load_instructions

    available = len(load_instructions(instructions))
    if wanted > available:
        raise StudyError(f"{wanted} rows for training and validation are wanted, {instructions!r} has {available}")
