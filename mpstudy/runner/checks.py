"""Checks of notebook parameters by their names, before any long work starts.

The runner calls :func:`validate` on the parameters of every run of a profile before the first one begins. What the
checks need (torch, corpora, models' configs) is imported only for the parameters that are there, and after the checks
that need nothing of it, so that most mistakes are answered at once.

Each parameter of the project's own notebooks has a rule in :data:`RULES`, which a test demands. A notebook of a
reader's own may declare other names: the runner then holds their values to the types of the notebook's defaults, and
here all their numbers must be finite.
"""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ..errors import StudyError, check_choice
from ..inputs.early import check_model, check_samples, plain_config
from ..inputs.tokens import check_room
from ..parameters import (
    Count,
    CountOrZero,
    Distinct,
    Flag,
    NonNegative,
    Positive,
    Ratio,
    Rising,
    Seeds,
    Some,
    Table,
    Text,
    Tokens,
    checked,
)
from ..recovery.recipe import RULES as RECIPE
from ..recovery.recipe import Recipe

RECIPE_NAMES = ("lr", "epochs", "batch_size", "micro_batch_size", "warmup_steps", "cutoff")


SAMPLES = (
    "samples",
    "sparse_samples",
    "rows",
    "moreau_rows",
    "averaged_rows",
    "long_rows",
    "sample_counts",
)  # of the calibration text
TOKENS = (
    "length",
    "lengths",
    "long_length",
    "sparse_length",
    "window",
    "long_window",
    "cutoff",
)  # that a model reads at once


def validate(parameters: dict) -> None:
    """Raise :class:`StudyError` for the first parameter that cannot be used."""
    plain = {name: value for name, value in parameters.items() if name not in NAMING}
    _check_rules(plain)
    _check_recipe(plain)
    config = plain_config(parameters["model"]) if "model" in parameters else None
    if config:
        _check_room(parameters, config)
    _check_rules({name: value for name, value in parameters.items() if name in NAMING})
    if config:
        _check_config(parameters, config)
    if "calibration" in parameters:
        check_samples(parameters["calibration"], max(_numbers(parameters, SAMPLES), default=1))
    if {"corpora", "window"} <= parameters.keys():
        _check_windows(parameters["corpora"], parameters["window"])
    if (counts := _row_counts(parameters)) and {"instructions", "validation_rows"} <= parameters.keys():
        _check_rows(parameters["instructions"], max(counts) + parameters["validation_rows"])
    if "model" in parameters:
        from ..inputs.models import load_config
        from .model_checks import check_model

        config = load_config(parameters["model"])
        _check_config(parameters, config)
        _check_room(parameters, config)
        check_model(parameters, config)


def _check_rules(parameters: dict) -> None:
    for name, value in parameters.items():
        checked(RULES.get(name, Unruled), name, value)


def _pruner(name: str) -> str:
    from ..pruners import PRUNERS

    check_choice("pruner", name, PRUNERS)
    return name


def _corpus(name: str, kind: str = "text") -> str:
    from ..inputs.corpora import CORPORA

    check_choice("corpus", name, {c for c, corpus in CORPORA.items() if corpus.kind == kind})
    return name


def _instructions(name: str) -> str:
    return _corpus(name, "instructions")


def _change(name: str) -> str:
    from ..stability import Change

    Change.parse(name)
    return name


def _task(name: str) -> str:
    from ..evaluation.tasks import TASKS

    check_choice("zero-shot task", name, TASKS)
    return name


def _solver(name: str) -> str:
    from ..gradients.envelope import SOLVERS

    check_choice("solver", name, SOLVERS)
    return name


def _method(name: str) -> str:
    from ..sparse.registry import ELEMENTWISE, METHODS

    check_choice("method", name, {*METHODS, *ELEMENTWISE} - {"masked"})
    return name


def _pipeline(name: str) -> str:
    from ..comparison import parse

    parse(name)
    return name


def _reference(name: str) -> str:
    check_model(name)
    from ..inputs.models import load_config

    load_config(name)
    return name


def _layers(text: str) -> str:
    from ..structure.units import HIDDEN, ranges

    if text != HIDDEN:
        ranges(text, None)
    return text


def _scope(name: str) -> str:
    from ..structure.plan import SCOPES

    check_choice("scope", name, SCOPES)
    return name


def _sparsity(value: Any) -> Any:
    from ..sparse.masks import Target

    Target.parse(value)
    return value


def _contrasts(table: dict) -> dict:
    """Each contrast with the run that has it, its words, its unit and the margin of its claim."""
    for contrast, entry in table.items():
        match entry:
            case [str(), str(), str(), margin]:
                checked(NonNegative, f"the margin of {contrast!r}", margin)
            case _:
                raise StudyError(f"{contrast!r} needs [run, words, unit, margin], not {entry!r}")
    return table


def _finite(value: Any) -> Any:
    """A literal in which each number is finite."""
    if isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            _finite(each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise StudyError(f"each number must be finite, not {value!r}")
    return value


LAYERS = Field(strict=True, description="text such as '4-25', 'attention 4-25, mlp 2-28' or 'hidden'")
Layers = Annotated[str, LAYERS, AfterValidator(_layers)]
Pruner = Annotated[Text, AfterValidator(_pruner)]
Pruners = Some[Pruner]
Corpus = Annotated[Text, AfterValidator(_corpus)]
Change = Annotated[Text, AfterValidator(_change)]
Method = Annotated[Text, AfterValidator(_method)]
Pipeline = Annotated[Text, AfterValidator(_pipeline)]
Sparsity = Annotated[Any, AfterValidator(_sparsity)]
Unruled = Annotated[Any, AfterValidator(_finite)]

NAMING = {  # rules about names, whose registries import torch
    "layers": Layers,
    **dict.fromkeys(("pruners", "compared"), Pruners),
    "changes": Some[Change],
    "compared_changes": Distinct[Change],
    **dict.fromkeys(("richer", "averaged"), Distinct[Pruner]),
    **dict.fromkeys(("calibration", "chosen_on"), Corpus),
    "corpora": Some[Corpus],
    "scopes": Some[Annotated[Text, AfterValidator(_scope)]],
    "solvers": Some[Annotated[Text, AfterValidator(_solver)]],
    "methods": Some[Method],
    "updated": Distinct[Method],
    "pipelines": Some[Pipeline],
    "recovered": Distinct[Pipeline],
    "change": Change,
    "sparsities": Some[Sparsity],
    "shown": Sparsity,
    "instructions": Annotated[Text, AfterValidator(_instructions)],
    "references": Distinct[Annotated[Text, AfterValidator(_reference)]],
}
RULES = NAMING | {
    "model": Annotated[Text, AfterValidator(check_model)],
    **dict.fromkeys(("length", "long_length", "sparse_length", "window", "long_window"), Tokens),
    **dict.fromkeys(("samples", "sparse_samples", "windows", "long_windows"), Count),
    "lengths": Some[Tokens],
    **dict.fromkeys(("share", "model_share"), Ratio),
    "shares": Some[Ratio],
    "pruning_steps": Count,
    **dict.fromkeys(("seeds", "choice_seeds", "lora_seeds", "lipschitz_seeds", "sparse_seeds"), Seeds),
    **dict.fromkeys(("rho", "tol", "sigma", "precision", "noise", "policy_lr"), Positive),
    **dict.fromkeys(("rhos", "etas", "tols", "sigmas", "lrs", "radii", "strengths"), Some[Positive]),
    "eta": NonNegative,
    "choose": Flag,
    **dict.fromkeys(("max_steps", "release_steps", "budget", "traced"), Count),
    **dict.fromkeys(("policy_steps", "generations", "population"), Count),
    **dict.fromkeys(("sweep_seeds", "quality_seeds", "averaged_rows"), Count),
    "corrected": Flag,
    **dict.fromkeys(("rows", "moreau_rows", "solver_steps", "sample_counts"), Rising),
    "long_rows": CountOrZero,
    "row_counts": Rising,
    **dict.fromkeys(("validation_rows", "recovery_rows"), Count),
    **{name: RECIPE[name] for name in RECIPE_NAMES},
    "tasks": Some[Annotated[Text, AfterValidator(_task)]],
    "prompts": Some[Text],
    **dict.fromkeys(("task_items", "new_tokens", "repeats"), Count),
    "read": Some[Text],
    **dict.fromkeys(("published", "instability"), Text),
    "primary": Annotated[Table, AfterValidator(_contrasts)],
}


def _numbers(parameters: dict, names: tuple[str, ...]) -> list[int]:
    """The numbers that the parameters of these names hold, one or several each."""
    values = [parameters[name] for name in names if name in parameters]
    return [each for value in values for each in (value if isinstance(value, list) else [value])]


def _row_counts(parameters: dict) -> list[int]:
    """How many instructions the models of a run are recovered from."""
    one = [parameters["recovery_rows"]] if "recovery_rows" in parameters else []
    return parameters.get("row_counts", []) + one


def _check_recipe(parameters: dict) -> None:
    given = {name: parameters[name] for name in RECIPE_NAMES if name in parameters}
    if given:
        recipe = Recipe(**given)
        for count in _row_counts(parameters):
            recipe.steps(count)


def _check_config(parameters: dict, config: Any) -> None:
    """Family and layer range against the model's configuration."""
    from ..structure.families import family
    from ..structure.units import HIDDEN, ranges

    family(config)  # one that is known
    if parameters.get("layers", HIDDEN) != HIDDEN:
        ranges(parameters["layers"], getattr(config, "num_hidden_layers", None))


def _check_room(parameters: dict, config: Any) -> None:
    """Lengths of text against the positions of the model."""
    unused = {"long_length"} if parameters.get("long_rows") == 0 else set()
    for length in _numbers(parameters, tuple(name for name in TOKENS if name not in unused)):
        check_room(config, length, [])


def _check_windows(corpora: list[str], window: int) -> None:
    """A token holds at least one character, so fewer characters than the window can never fill it."""
    from ..inputs.corpora import load_texts

    for name in corpora:
        if sum(len(text) for text in load_texts(name)[:1000]) < window:
            raise StudyError(f"corpus {name!r} is too short for a window of {window} tokens")


def _check_rows(instructions: str, wanted: int) -> None:
    from ..inputs.corpora import load_instructions

    available = len(load_instructions(instructions))
    if wanted > available:
        raise StudyError(f"{wanted} rows for training and validation are wanted, {instructions!r} has {available}")
