"""What a model is worth and what it costs: perplexity in fp32, parameters, file size, latency."""

import math
import time
from functools import partial

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .errors import StudyError
from .memory import peak_of
from .stats import bootstrap_ci

MOST_NATS = 700  # exp of more overflows


@torch.inference_mode()
def perplexity(model, windows: torch.Tensor, *, batch_size: int = 8) -> dict:
    """Perplexity on non-overlapping token windows; losses are computed and averaged in fp32 whatever the model's dtype.

    Parameters
    ----------
    windows: int64 (n, window). In each window the last ``window - 1`` tokens are predicted from those before them.

    Returns
    -------
    ``perplexity``, its ``stderr`` (delta method over windows), ``nll`` (nats per token), ``accuracy`` (share of tokens
    that were the most likely one), ``tokens`` predicted, ``window``.

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
    }


def _window_means(model, batch: torch.Tensor) -> torch.Tensor:
    """Mean loss and mean accuracy of each window, (2, windows)."""
    logits = _logits(model, batch)
    losses = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    hits = logits.argmax(dim=-1) == batch[:, 1:]
    return torch.stack([losses.view(len(batch), -1).mean(dim=1), hits.float().mean(dim=1)])


def _logits(model, batch: torch.Tensor) -> torch.Tensor:
    return model(input_ids=batch, use_cache=False).logits[:, :-1].float()


@torch.inference_mode()
def divergence(first, second, windows: torch.Tensor, *, batch_size: int = 2) -> dict:
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


def parameter_count(model) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(model) -> int:
    """Bytes of the weights in their dtype, which is the size of their safetensors file up to its header."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@torch.inference_mode()
def macs(model, tokens: int = 128) -> int:
    """Multiply-accumulate operations of one forward pass over ``tokens`` tokens, all logits included: half of what
    torch's counter finds in products of matrices. Attention is counted in full, without what a causal kernel skips.
    """
    batch = torch.zeros((1, tokens), dtype=torch.long, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(input_ids=batch, use_cache=False)
    return counter.get_total_flops() // 2


def peak_memory(model, *, prompt: int = 128, new_tokens: int = 32) -> int | None:
    """Bytes that the weights and a generation of ``new_tokens`` after ``prompt`` tokens take at most; None for a CPU
    outside Linux.
    """
    generation = partial(_one_latency, model, prompt, new_tokens)
    generation()  # weights that are still on the disk come into memory with their first use
    _, more = peak_of(generation, model.device)
    return None if more is None else weight_bytes(model) + more


def generate(model, tokenizer, prompts: list[str], *, new_tokens: int = 48) -> list[str]:
    """The greedy continuation of each prompt, up to the end of text or ``new_tokens`` tokens."""
    answers = []
    for prompt in prompts:
        tokens = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        written = model.generate(**tokens, **options)[0, tokens.input_ids.shape[1] :]
        answers.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return answers


def latency(models: dict, *, prompt: int = 128, new_tokens: int = 32, repeats: int = 5) -> list[dict]:
    """Seconds to read ``prompt`` tokens (``prefill``) and to write ``new_tokens`` greedily with a KV cache
    (``decode``).

    The models take turns, so that a drift of the machine's speed meets them all. One row per model and phase with the
    median of ``repeats`` runs after one warm-up (``median_s``) and its 95 % bootstrap interval (``low_s``, ``high_s``).
    """
    seconds = {name: {"prefill": [], "decode": []} for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            prefill, decode = _one_latency(model, prompt, new_tokens)
            if repeat:
                seconds[name]["prefill"].append(prefill)
                seconds[name]["decode"].append(decode)
    rows = []
    for name, phases in seconds.items():
        for phase, values in phases.items():
            middle, low, high = bootstrap_ci(values, statistic=np.median)
            tokens = prompt if phase == "prefill" else new_tokens
            row = {
                "model": name,
                "phase": phase,
                "tokens": tokens,
                "median_s": middle,
                "low_s": low,
                "high_s": high,
            }
            rows.append(row | {"repeats": repeats})
    return rows


@torch.inference_mode()
def _one_latency(model, prompt: int, new_tokens: int) -> tuple[float, float]:
    device = next(model.parameters()).device
    tokens = torch.arange(prompt, device=device).unsqueeze(0) % model.config.vocab_size
    begin = _now(device)
    output = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
    middle = _now(device)
    for _ in range(new_tokens):
        following = output.logits[:, -1:].argmax(-1)
        output = model(input_ids=following, past_key_values=output.past_key_values, use_cache=True)
    return middle - begin, _now(device) - middle


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
