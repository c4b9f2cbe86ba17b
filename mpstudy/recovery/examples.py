"""Instruction rows as training examples, and several examples as one batch of a backward pass.

An *example* is (token ids, labels): lists of one length, with :data:`IGNORED` as the label of tokens without a loss. A
*batch* is what a model and :func:`loss_sum` take: int64 tensors ``input_ids`` and ``labels`` of shape (rows, tokens),
with ``position_ids`` where examples are packed and ``attention_mask`` where they are padded.
"""

import torch
from torch.nn import functional

from ..errors import StudyError
from ..inputs.tokens import leading

IGNORED = -100
Example = tuple[list[int], list[int]]


def alpaca_prompt(row: dict) -> str:
    """The prompt template of Stanford Alpaca (Taori et al. 2023), up to where the response begins."""
    context = ", paired with an input that provides further context" if row["input"] else ""
    given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
    return (
        f"Below is an instruction that describes a task{context}. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n"
    )


def encode(tokenizer, rows, cutoff: int, loss_on: str = "response", bos: bool | None = None) -> list[Example]:
    """Instruction rows (``instruction``, ``input``, ``output``) as examples of at most ``cutoff`` tokens.

    An example begins with BOS as ``bos`` says (see :func:`mpstudy.inputs.tokens.leading`). The loss is on the
    ``response`` and the end of text after it, or on ``all`` tokens but the first, which nothing predicts. Rows with an
    empty response or none within ``cutoff`` are dropped; :class:`StudyError` when none is left.
    """
    if tokenizer.eos_token_id is None:
        raise StudyError("recovery needs a tokenizer with an end-of-text token")
    examples, first = [], leading(tokenizer, bos)
    for row in rows:
        prompt = first + tokenizer(alpaca_prompt(row), add_special_tokens=False).input_ids
        response = tokenizer(row["output"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        ids, silent = prompt + response, 1 if loss_on == "all" else len(prompt)
        if row["output"].strip() and len(prompt) < cutoff:
            examples.append((ids[:cutoff], ([IGNORED] * silent + ids[silent:])[:cutoff]))
    if not examples:
        raise StudyError(f"no instruction row has a response within the first {cutoff} tokens")
    return examples


def check_vocabulary(examples: list[Example], size: int) -> None:
    """:class:`StudyError` for a token id that a vocabulary of ``size`` does not have."""
    if (largest := max(max(ids) for ids, _ in examples)) >= size:
        raise StudyError(
            f"the tokenizer gives the token id {largest}, which is outside the model's vocabulary of {size}: their "
            "embeddings were not resized, or they do not belong together"
        )


def targets(examples: list[Example]) -> int:
    """Number of tokens with a loss."""
    return sum(label != IGNORED for _, labels in examples for label in labels)


def split(examples: list[Example], rows: int, cutoff: int, packing: bool) -> list[list[list[Example]]]:
    """The examples of one optimiser step as groups of at most ``rows`` windows, a group for one backward pass.

    A window holds one example or, with ``packing``, as many as fit into ``cutoff`` tokens (first fit, longest first:
    Johnson 1973). Every example is in exactly one window; windows of similar length stand together.
    """
    longest_first = sorted(examples, key=lambda example: -len(example[0]))
    windows = _first_fit(longest_first, cutoff) if packing else [[example] for example in longest_first]
    return [windows[start : start + rows] for start in range(0, len(windows), rows)]


def _first_fit(examples: list[Example], cutoff: int) -> list[list[Example]]:
    windows, room = [], []
    for example in examples:
        size = len(example[0])
        place = next((i for i, free in enumerate(room) if size <= free), None)
        if place is None:
            windows.append([example])
            room.append(cutoff - size)
        else:
            windows[place].append(example)
            room[place] -= size
    return windows


def packed(windows: list[list[Example]]) -> dict[str, torch.Tensor]:
    """Windows of several examples, one window a row. The positions of each example begin again at 0, by which
    transformers tells them apart: no token attends to another example, nor to what fills up the row.
    """
    joined = [tuple([token for example in window for token in example[part]] for part in (0, 1)) for window in windows]
    positions = [[position for ids, _ in window for position in range(len(ids))] for window in windows]
    batch = _rows(joined)
    longest = batch["input_ids"].shape[1]
    return batch | {"position_ids": torch.tensor([row + list(range(longest - len(row))) for row in positions])}


def padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Examples one a row; what fills up a row is masked."""
    batch = _rows(examples)
    lengths, longest = [len(ids) for ids, _ in examples], batch["input_ids"].shape[1]
    return batch | {"attention_mask": torch.tensor([[1] * size + [0] * (longest - size) for size in lengths])}


def _rows(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Ids and labels filled up to the longest example. Neither attention nor loss reaches the filler, so any token
    will do.
    """
    longest = max(len(ids) for ids, _ in examples)
    fill = lambda part, filler: torch.tensor([row + [filler] * (longest - len(row)) for row in part])  # noqa: E731
    ids, labels = zip(*examples)
    return {"input_ids": fill(ids, 0), "labels": fill(labels, IGNORED)}


def silenced(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with no target: its loss and gradients are zero."""
    return batch | {"labels": torch.full_like(batch["labels"], IGNORED)}


def loss_sum(model, batch: dict[str, torch.Tensor], device) -> torch.Tensor:
    """Sum over the targets of the loss in nats, in fp32. Logits are computed only where a target follows, which spares
    much of the work on a large vocabulary.
    """
    batch = {name: value.to(device) for name, value in batch.items()}
    labels = batch.pop("labels")[:, 1:]
    wanted = labels != IGNORED
    head = getattr(model, "module", model).get_output_embeddings()  # several processes wrap the model
    hook = head.register_forward_pre_hook(lambda module, hidden: (hidden[0][:, :-1][wanted],))
    try:
        logits = model(**batch, use_cache=False).logits.float()
    finally:
        hook.remove()
    return functional.cross_entropy(logits, labels[wanted], reduction="sum")
