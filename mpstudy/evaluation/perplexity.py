"""What a model is worth and what it costs: perplexity in fp32, parameters, file size, latency."""

import math

import torch
from torch import nn
from torch.nn import functional

from ..errors import StudyError

MOST_NATS = 700  # exp of more overflows
BATCH = 8  # windows
BATCH_TOKENS = 2048  # the logits of one token are as many numbers as the vocabulary has entries


@torch.inference_mode()
def perplexity(model: nn.Module, windows: torch.Tensor, *, batch_size: int = 8) -> dict:
    """Perplexity on non-overlapping token windows; losses are computed and averaged in fp32 whatever the model's dtype.

    Parameters
    ----------
    windows: int64 (n, window). In each window the last ``window - 1`` tokens are predicted from those before them.

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
    parts = [_window_means(model, batch.to(device)) for batch in windows.split(batch_size)]
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


def at_once(window: int) -> int:
    """How many windows of ``window`` tokens make a batch that fits a small memory: 8, fewer where they are long."""
    return max(1, min(BATCH, BATCH_TOKENS // window))


def _window_means(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Mean loss and mean accuracy of each window, (2, windows)."""
    logits = _logits(model, batch)
    losses = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    hits = logits.argmax(dim=-1) == batch[:, 1:]
    return torch.stack([losses.view(len(batch), -1).mean(dim=1), hits.float().mean(dim=1)])


def _logits(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(input_ids=batch, use_cache=False).logits[:, :-1].float()


@torch.inference_mode()
def divergence(first: nn.Module, second: nn.Module, windows: torch.Tensor, *, batch_size: int = 2) -> dict:
    """How differently two models continue the same windows, int64 (n, window).

    ``kl``: mean of KL(first || second) over the predicted tokens, in nats, computed in fp32, and its ``stderr`` over
    windows; ``same_token``: share of tokens where both find the same next token most likely.
    """
    device = next(first.parameters()).device
    divergences, same = [], []
    for batch in windows.split(batch_size):
        ours, theirs = (_logits(model, batch.to(device)).log_softmax(dim=-1) for model in (first, second))
        same.append((ours.argmax(dim=-1) == theirs.argmax(dim=-1)).float().mean(dim=1))
        divergences.append((ours.exp() * (ours - theirs)).sum(dim=-1).mean(dim=1))
    kl = torch.cat(divergences).double()
    if not torch.isfinite(kl).all():
        raise StudyError("the divergence of the two models is not finite: the weights of one are not usable")
    stderr = kl.std().item() / math.sqrt(len(kl)) if len(kl) > 1 else float("nan")
    return {"kl": kl.mean().item(), "stderr": stderr, "same_token": torch.cat(same).mean().item()}
