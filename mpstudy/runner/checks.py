"""Checks of notebook parameters by their names, before any long work starts.

The runner calls :func:`validate` on the parameters of every run of a profile before the first one begins. What the
checks need (models' configs, corpora) is imported only for the parameters that are there.

Each parameter of the project's own notebooks has a rule in :data:`RULES`, which a test demands. A notebook of a
reader's own may declare other names: the runner then holds their values to the types of the notebook's defaults, and
here all their numbers must be finite.
"""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ..errors import StudyError, check_choice
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


def validate(parameters: dict) -> None:
    """Raise :class:`StudyError` for the first parameter that cannot be used."""
    for name, value in parameters.items():
        checked(RULES.get(name, Unruled), name, value)
    _check_recipe(parameters)
    if "model" in parameters:
        _check_model(parameters)
    if {"corpora", "window"} <= parameters.keys():
        _check_windows(parameters["corpora"], parameters["window"])
    if (counts := _row_counts(parameters)) and {"instructions", "validation_rows"} <= parameters.keys():
        _check_rows(parameters["instructions"], max(counts) + parameters["validation_rows"])


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


def _reference(name: str) -> str:
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
Pruners = Some[Annotated[Text, AfterValidator(_pruner)]]
Corpus = Annotated[Text, AfterValidator(_corpus)]
Change = Annotated[Text, AfterValidator(_change)]
Method = Annotated[Text, AfterValidator(_method)]
Sparsity = Annotated[Any, AfterValidator(_sparsity)]
Unruled = Annotated[Any, AfterValidator(_finite)]

RULES = {
    "model": Text,
    "layers": Layers,
    **dict.fromkeys(("pruners", "compared"), Pruners),
    "changes": Some[Change],
    "compared_changes": Distinct[Change],
    "richer": Distinct[Annotated[Text, AfterValidator(_pruner)]],
    "averaged": Distinct[Annotated[Text, AfterValidator(_pruner)]],
    **dict.fromkeys(("calibration", "chosen_on"), Corpus),
    "corpora": Some[Corpus],
    **dict.fromkeys(("length", "long_length", "sparse_length", "window", "long_window"), Tokens),
    **dict.fromkeys(("samples", "sparse_samples", "windows", "long_windows"), Count),
    "lengths": Some[Tokens],
    **dict.fromkeys(("share", "model_share"), Ratio),
    "shares": Some[Ratio],
    "scopes": Some[Annotated[Text, AfterValidator(_scope)]],
    "pruning_steps": Count,
    **dict.fromkeys(("seeds", "choice_seeds", "lora_seeds", "lipschitz_seeds", "sparse_seeds"), Seeds),
    **dict.fromkeys(("rho", "tol", "sigma", "precision", "noise"), Positive),
    **dict.fromkeys(("rhos", "etas", "tols", "sigmas", "lrs", "radii"), Some[Positive]),
    "eta": NonNegative,
    "choose": Flag,
    "solvers": Some[Annotated[Text, AfterValidator(_solver)]],
    **dict.fromkeys(("max_steps", "release_steps", "budget", "traced"), Count),
    **dict.fromkeys(("sweep_seeds", "quality_seeds", "averaged_rows"), Count),
    "corrected": Flag,
    **dict.fromkeys(("rows", "moreau_rows", "solver_steps"), Rising),
    "long_rows": CountOrZero,
    "methods": Some[Method],
    "updated": Distinct[Method],
    "sparsities": Some[Sparsity],
    "shown": Sparsity,
    "instructions": Annotated[Text, AfterValidator(_instructions)],
    "row_counts": Rising,
    **dict.fromkeys(("validation_rows", "recovery_rows"), Count),
    **{name: RECIPE[name] for name in RECIPE_NAMES},
    "tasks": Some[Annotated[Text, AfterValidator(_task)]],
    "references": Distinct[Annotated[Text, AfterValidator(_reference)]],
    "prompts": Some[Text],
    **dict.fromkeys(("task_items", "new_tokens", "repeats"), Count),
    "read": Some[Text],
    **dict.fromkeys(("published", "instability"), Text),
    "primary": Annotated[Table, AfterValidator(_contrasts)],
}


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


def _check_model(parameters: dict) -> None:
    """Family, layer range, shares and the tokens of instructions against the model's configuration."""
    from ..inputs.models import load_config
    from ..structure.families import family
    from ..structure.units import HIDDEN, ranges

    config = load_config(parameters["model"])
    family(config)  # one that is known
    if parameters.get("layers", HIDDEN) != HIDDEN:
        ranges(parameters["layers"], config.num_hidden_layers)
    _check_shares(parameters, config)
    if "instructions" in parameters:
        _check_ends(parameters["model"], config.vocab_size)


def _check_shares(parameters: dict, config: Any) -> None:
    """The shares of ``share`` and ``shares``; of a pruned model the config does not say how many units it has."""
    from ..structure.checkpoint import is_pruned
    from ..structure.feasible import check_shares

    shares = [parameters["share"]] if "share" in parameters else []
    shares += parameters.get("shares", [])
    if shares and "layers" in parameters and not is_pruned(parameters["model"]):
        check_shares(config, parameters["layers"], shares)


def _check_ends(model: str, size: int) -> None:
    """The tokens that begin and end an example have a row in the embeddings."""
    from ..inputs.models import load_tokenizer
    from ..inputs.tokens import leading

    tokenizer = load_tokenizer(model)
    if tokenizer.eos_token_id is None:
        raise StudyError(f"the tokenizer of {model} has no end-of-text token, which recovery needs")
    ends = {"end-of-text": tokenizer.eos_token_id, "BOS": max(leading(tokenizer), default=None)}
    for name, token in ends.items():
        if token is not None and token >= size:
            raise StudyError(f"the {name} token {token} is outside the vocabulary of {model}, which has {size}")


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
