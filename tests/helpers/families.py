"""A tiny random model of the real transformers class of every family that the study knows."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mpstudy.structure.families import FAMILIES

from .tiny import BYTES

SIZES = {
    "vocab_size": BYTES, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "head_dim": 8, "max_position_embeddings": 512, "initializer_range": 0.15,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
UNGROUPED = ("gpt_neox", "opt")
OWN = {
    "qwen2": {"use_sliding_window": False},
    "gemma2": {"sliding_window": 64, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        "sliding_window": 64,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "granite": {
        "attention_bias": True,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
    },
    "glm": {"attention_bias": True},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 32, "init_std": 0.15},
    "gpt_neox": {"rotary_pct": 0.5},
}


def tiny_family(kind: str, seed: int = 0, **changes):
    """Two layers, four heads (two KV heads where the family has them), biases that are not zero; ``changes`` are those
    of the config.
    """
    assert kind in FAMILIES
    grouped = {} if kind in UNGROUPED else {"num_key_value_heads": 2}
    config = AutoConfig.for_model(kind, **SIZES | grouped | OWN.get(kind, {}) | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.2)
    return model
