"""What a model is worth and what it costs: perplexity in fp32, parameters, file size, latency."""

import math
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from ..errors import StudyError

MOST_NATS = 700  # exp of more overflows
BATCH = 8  # windows
LOGITS = 2**26  # of a batch: 0.27 GB in fp32
WHOLE = 2**27  # logits that a model may put out at once, 0.5 GB in fp32; some hold a second copy meanwhile
PIECE = 2**24  # of the logits that a loss is computed of at a time


@torch.inference_mode()
def perplexity(model: PreTrainedModel, windows: torch.Tensor, *, batch_size: int | None = None) -> dict:
    """Perplexity on non-overlapping token windows; losses are computed and averaged in fp32 whatever the model's dtype.

    Parameters
    ----------
    windows: int64 (n, window). In each window the last ``window - 1`` tokens are predicted from those before them.
    batch_size: windows in one forward pass; by default as many as :func:`at_once` says, which fit a small memory.

    Returns
    -------
    ``perplexity``, its ``stderr`` (delta method over windows), ``nll`` (nats per token), ``accuracy`` (share of tokens
    that were the most likely one), ``tokens`` predicted, ``window``, and ``losses``, the nats per token of each window.

    Raises
    ------
    StudyError: windows of one token, a non-finite loss, or one beyond what a perplexity can express.
    """
    count, window = windows.shape
    if window < 2:
        raise StudyError(f"a window needs at least 2 tokens, the first of which is not predicted, not {window}")
    device = next(model.parameters()).device
    size = batch_size or at_once(window, model.config.get_text_config().vocab_size)
    parts = [_window_means(model, batch.to(device)) for batch in windows.split(size)]
    means, hits = torch.cat(parts, dim=1).double()
    nll = means.mean().item()
    if not nll < MOST_NATS:
        raise StudyError(f"the evaluation loss is {nll} nats: the model's weights are not usable")
    spread = means.std().item() / math.sqrt(len(means)) if len(means) > 1 else float("nan")
    value = math.exp(nll)
    return {
        "perplexity": value,
        "stderr": value * spread,
        "nll": nll,
        "accuracy": hits.mean().item(),
        "tokens": count * (window - 1),
        "window": window,
        "losses": means.tolist(),
    }


def at_once(window: int, vocabulary: int) -> int:
    """How many windows of ``window`` tokens make a batch whose logits, ``vocabulary`` numbers a token, fit a small
    memory: 8, fewer where they are long, one where even that is too much.
    """
    return max(1, min(BATCH, LOGITS // (window * vocabulary)))


def _window_means(model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
    """Mean loss and mean accuracy of each window, (2, windows)."""
    if batch.numel() * model.config.get_text_config().vocab_size > WHOLE:
        found = [_token_losses(_logits_in_pieces(model, window[None]), window[1:]) for window in batch]
    else:
        logits = _logits(model, batch)
        found = [_token_losses(_pieces(each), following) for each, following in zip(logits, batch[:, 1:])]
    return torch.stack(found, dim=1).mean(dim=-1)


def _token_losses(pieces: Iterator[torch.Tensor], following: torch.Tensor) -> torch.Tensor:
    """Loss and accuracy, 0 or 1, of each token of a window, (2, tokens), by the logits that predict it, which come in
    pieces: a loss takes as much memory as the logits that it is of.
    """
    losses, hits, begin = [], [], 0
    for piece in pieces:
        wanted = following[begin : begin + len(piece)]
        losses.append(functional.cross_entropy(piece.float(), wanted, reduction="none"))
        hits.append((piece.float().argmax(dim=-1) == wanted).float())
        begin += len(piece)
    return torch.stack([torch.cat(losses), torch.cat(hits)])


def _pieces(logits: torch.Tensor) -> Iterator[torch.Tensor]:
    """Some tokens' logits, (tokens, vocabulary), a number of tokens at a time."""
    yield from logits.split(_tokens_at_once(logits.shape[-1]))


def _logits_in_pieces(model: PreTrainedModel, window: torch.Tensor) -> Iterator[torch.Tensor]:
    """The logits of :func:`_logits` for one window, (1, tokens), without ever holding those of all tokens.

    The layers run once. What the family makes of their output, such as Gemma's softcapping and Granite's scaling, its
    own ``forward`` does for a piece at a time, in which the layers put out what they put out before.
    """
    decoder = model.get_decoder()
    states = decoder(input_ids=window, use_cache=False)
    hidden = states.last_hidden_state
    for piece in hidden[:, :-1].split(_tokens_at_once(model.config.get_text_config().vocab_size), dim=1):
        states.last_hidden_state = piece
        with patch.object(decoder, "forward", lambda *_, **__: states):
            yield model(input_ids=window, use_cache=False).logits[0]


def _tokens_at_once(vocabulary: int) -> int:
    return max(1, PIECE // vocabulary)


def _logits(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The logits that predict all tokens of each window but the first, in the model's dtype."""
    return model(input_ids=batch, use_cache=False).logits[:, :-1]


@torch.inference_mode()
def divergence(first: nn.Module, second: nn.Module, windows: torch.Tensor, *, batch_size: int = 2) -> dict:
    """How differently two models continue the same windows, int64 (n, window).

    ``kl``: mean of KL(first || second) over the predicted tokens, in nats, computed in fp32, and its ``stderr`` over
    windows; ``same_token``: share of tokens where both find the same next token most likely.
    """
    device = next(first.parameters()).device
    divergences, same = [], []
    for batch in windows.split(batch_size):
        ours, theirs = (_logits(model, batch.to(device)).float().log_softmax(dim=-1) for model in (first, second))
        same.append((ours.argmax(dim=-1) == theirs.argmax(dim=-1)).float().mean(dim=1))
        divergences.append((ours.exp() * (ours - theirs)).sum(dim=-1).mean(dim=1))
    kl = torch.cat(divergences).double()
    if not torch.isfinite(kl).all():
        raise StudyError("the divergence of the two models is not finite: the weights of one are not usable")
    stderr = kl.std().item() / math.sqrt(len(kl)) if len(kl) > 1 else float("nan")
    return {"kl": kl.mean().item(), "stderr": stderr, "same_token": torch.cat(same).mean().item()}
