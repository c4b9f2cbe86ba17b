"""Checks of notebook parameters that take the whole of a model's config or its tokenizer."""

from typing import Any

from ..errors import StudyError


def check_model(parameters: dict, config: Any) -> None:
    """Raise :class:`StudyError` for shares that the model cannot meet, and for end tokens that it has no row for."""
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
