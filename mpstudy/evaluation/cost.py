"""What a model costs: parameters, bytes, multiply-accumulates, memory and latency."""

import time
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from ..memory import peak_of
from ..stats import bootstrap_ci


def parameter_count(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the weights in their dtype, which is the size of their safetensors file up to its header."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@torch.inference_mode()
def macs(model: nn.Module, tokens: int = 128) -> int:
    """Multiply-accumulate operations of one forward pass over ``tokens`` tokens, all logits included: half of what
    torch's counter finds in products of matrices. Attention is counted in full, without what a causal kernel skips.
    """
    batch = torch.zeros((1, tokens), dtype=torch.long, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(input_ids=batch, use_cache=False)
    return counter.get_total_flops() // 2


def peak_memory(model: PreTrainedModel, *, prompt: int = 128, new_tokens: int = 32) -> int | None:
    """Bytes that the weights and a generation of ``new_tokens`` after ``prompt`` tokens take at most; None for a CPU
    outside Linux.
    """
    generation = partial(_one_latency, model, prompt, new_tokens)
    generation()  # weights that are still on the disk come into memory with their first use
    _, more = peak_of(generation, model.device)
    return None if more is None else weight_bytes(model) + more


def latency(
    models: dict[str, PreTrainedModel], *, prompt: int = 128, new_tokens: int = 32, repeats: int = 5
) -> list[dict]:
    """Seconds to read ``prompt`` tokens (``prefill``) and to write ``new_tokens`` greedily with a KV cache
    (``decode``).

    The models take turns, so that a drift of the machine's speed meets them all. One row per model and phase with the
    median of ``repeats`` runs after one warm-up (``median_s``) and its 95 % bootstrap interval (``low_s``, ``high_s``).
    """
    seconds: dict[str, dict[str, list[float]]] = {name: {"prefill": [], "decode": []} for name in models}
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
def _one_latency(model: PreTrainedModel, prompt: int, new_tokens: int) -> tuple[float, float]:
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
