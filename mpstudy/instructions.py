"""Instruction rows as training examples, and several examples as one batch of a backward pass.

An *example* is (token ids, labels): lists of one length, with :data:`IGNORED` as the label of tokens without a loss. A
*batch* is what a model and :func:`loss_sum` take: int64 tensors ``input_ids`` and ``labels`` of shape (rows, tokens),
with ``position_ids`` where examples are packed and ``attention_mask`` where they are padded.
"""

import torch
from torch.nn import functional

from .errors import StudyError

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


def encode(tokenizer, rows, cutoff: int, loss_on: str = "response") -> list[Example]:
    """Instruction rows (``instruction``, ``input``, ``output``) as examples of at most ``cutoff`` tokens.

    The loss is on the ``response`` and the end of text after it, or on ``all`` tokens but the first, which nothing
    predicts. Rows with no response within ``cutoff`` are dropped; :class:`StudyError` when none is left.
    """
    if tokenizer.eos_token_id is None:
        raise StudyError("recovery needs a tokenizer with an end-of-text token")
    examples = []
    for row in rows:
        prompt = tokenizer(alpaca_prompt(row), add_special_tokens=False).input_ids
        response = tokenizer(row["output"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        ids, silent = prompt + response, 1 if loss_on == "all" else len(prompt)
        if len(prompt) < cutoff:
            examples.append((ids[:cutoff], ([IGNORED] * silent + ids[silent:])[:cutoff]))
    if not examples:
        raise StudyError(f"no instruction row has a response within the first {cutoff} tokens")
    return examples


def targets(examples: list[Example]) -> int:
    """Number of tokens with a loss."""
    return sum(label != IGNORED for _, labels in examples for label in labels)


def split(examples: list[Example], rows: int, cutoff: int, packing: bool) -> list[list[Example]]:
    """The examples of one optimiser step in groups, one a backward pass, none of more than ``rows * cutoff`` tokens.

    With ``packing`` a group is filled up to that many tokens (first fit, longest first: Johnson 1973), otherwise it
    holds ``rows`` examples of similar length. Every example is in exactly one group.
    """
    longest_first = sorted(examples, key=lambda example: -len(example[0]))
    if not packing:
        return [longest_first[start : start + rows] for start in range(0, len(examples), rows)]
    groups, room = [], []
    for example in longest_first:
        size = len(example[0])
        place = next((i for i, free in enumerate(room) if size <= free), None)
        if place is None:
            groups.append([example])
            room.append(rows * cutoff - size)
        else:
            groups[place].append(example)
            room[place] -= size
    return groups


def packed(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Examples one after the other in a single row. Their positions begin again at 0, by which transformers tells them
    apart: no token attends to another example.
    """
    ids, labels = ([token for example in examples for token in example[part]] for part in (0, 1))
    positions = [position for example in examples for position in range(len(example[0]))]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
    }


def padded(examples: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """Examples one a row, filled up to the longest with the token ``pad``, which is masked."""
    longest = max(len(ids) for ids, _ in examples)

    def rows(part, filler):
        return torch.tensor([list(row) + [filler] * (longest - len(row)) for row in part])

    return {
        "input_ids": rows([ids for ids, _ in examples], pad),
        "attention_mask": rows([[1] * len(ids) for ids, _ in examples], 0),
        "labels": rows([labels for _, labels in examples], IGNORED),
    }


def silenced(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with no target: its loss and gradients are zero."""
    return batch | {"labels": torch.full_like(batch["labels"], IGNORED)}


def loss_sum(model, batch: dict[str, torch.Tensor], device) -> torch.Tensor:
    """Sum over the targets of the loss in nats, in fp32. Logits are computed only where a token with a loss follows,
    which spares most of the work on a large vocabulary.
    """
    batch = {name: value.to(device) for name, value in batch.items()}
    labels = batch.pop("labels")
    before = (labels[:, 1:] != IGNORED).any(dim=0).nonzero().flatten()
    logits = model(**batch, use_cache=False, logits_to_keep=before).logits.float()
    return functional.cross_entropy(
        logits.flatten(0, 1), labels[:, before + 1].flatten(), ignore_index=IGNORED, reduction="sum"
    )
