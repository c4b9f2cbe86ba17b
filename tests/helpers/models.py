"""Tiny random Llama models for tests, their scores, and the reference model whose scores are known."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpstudy import pruners

REFERENCE = Path(__file__).parent / "reference"
LAYERS = "1-4"  # the layers of the reference model that were pruned
CASES = json.loads((REFERENCE / "cases.json").read_text())
FEW = {  # few steps, and noise wherever a pruner draws it
    "smoothgrad": {"steps": 2},
    "moreau": {"max_steps": 3, "sigma": 0.05},
    "moreau-gs": {"max_steps": 3, "sigma": 0.05},
    "moreau-release": {"steps": 2},
    "policy-gradient": {"steps": 2, "ratio": 0.5},
    "evolution": {"generations": 2, "population": 6, "parents": 2, "mutations": 2, "crossovers": 1, "ratio": 0.5},
}


def tiny_llama(*, layers=2, heads=4, kv_heads=4, mlp=24, bias=False, seed=0) -> LlamaForCausalLM:
    """A random float32 Llama: hidden 48, heads of 8, vocabulary 96, weights large enough for outputs to differ."""
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=8,
        attention_bias=bias,
        mlp_bias=bias,
        initializer_range=0.2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # transformers starts biases at zero, which would test nothing
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def tiny_tokens(samples=2, length=16, seed=0) -> torch.Tensor:
    """Random int64 tokens (samples, length) for :func:`tiny_llama`."""
    return torch.randint(96, (samples, length), generator=torch.Generator().manual_seed(seed))


def reference_arrays() -> dict:
    """The arrays of ``reference/tiny_llama.npz`` as tensors; see the README beside it."""
    with np.load(REFERENCE / "tiny_llama.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def reference_model(arrays: dict) -> LlamaForCausalLM:
    """The model whose weights are in ``arrays``: hidden 64, 4 heads of 16, 172 MLP channels, 6 layers."""
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    weights = {name.removeprefix("weights/"): value for name, value in arrays.items() if name.startswith("weights/")}
    model.load_state_dict(weights, strict=True)
    return model


def bits(model) -> dict:
    """Copies of all parameters, to compare with later."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same_bits(model, before: dict) -> bool:
    """Whether every parameter equals its copy in ``before`` to the bit."""
    now = dict(model.named_parameters())
    return now.keys() == before.keys() and all(
        torch.equal(now[name].view(torch.uint8), value.view(torch.uint8)) for name, value in before.items()
    )


def score(name, model, units, batches=None, **settings):
    """Scores with few steps, and on one batch of random tokens unless told otherwise."""
    batches = [tiny_tokens()] if batches is None else batches
    return pruners.score(name, model, batches, units, **FEW.get(name, {}) | settings)


def equal(first, second):
    """Whether two scores are the same numbers."""
    return first.values.keys() == second.values.keys() and all(
        torch.equal(value, second.values[key]) for key, value in first.values.items()
    )


def distance(first, second):
    """Largest relative distance between the scores of a set."""
    pairs = [(value, second.values[key]) for key, value in first.values.items()]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)
