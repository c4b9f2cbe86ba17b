"""What a tokenizer puts before a text, and whether a model has a position for it."""

from ..errors import StudyError


def adds_bos(tokenizer) -> bool:
    """Whether the tokenizer puts its BOS token before an ordinary text: Gemma's and LLaMA's do, GPT-2's does not."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [bos]


def leading(tokenizer, bos: bool | None = None) -> list[int]:
    """The token ids that a window of text begins with: BOS or none.

    ``bos``: whether there is one, None for what the tokenizer does by itself (:func:`adds_bos`). Raises
    :class:`StudyError` where one is asked for and the tokenizer has none.
    """
    if bos is None:
        bos = adds_bos(tokenizer)
    if bos and tokenizer.bos_token_id is None:
        raise StudyError("windows cannot begin with BOS: the tokenizer has no such token")
    return [tokenizer.bos_token_id] if bos else []


def check_room(config, window: int, leading: list[int]) -> None:
    """Raise :class:`StudyError` where the model has no positions for ``window`` tokens of text and what leads them."""
    positions = getattr(config, "max_position_embeddings", None) or window + len(leading)
    if window + len(leading) > positions:
        more = " and BOS" if leading else ""
        raise StudyError(
            f"a window of {window} tokens{more} has no room in the {positions} positions of the model: at most "
            f"{positions - len(leading)}"
        )
