"""A tiny Llama model, a tokenizer of bytes and a folder of both, for tests that need no download."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BYTES = 257  # vocabulary of byte_tokenizer
ROWS = [
    {"instruction": f"Say the number {word}.", "input": "" if i % 2 else f"it is {i}", "output": f"It is {word}."}
    for i, word in enumerate("zero one two three four five six seven eight nine ten eleven".split())
]


def tiny_model(seed: int = 0, **changes) -> LlamaForCausalLM:
    """Two layers, four query heads on two KV heads, weights large enough that its logits differ."""
    settings = {
        "vocab_size": BYTES, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.15,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def cast(model, dtype: torch.dtype):
    """``model`` with its parameters in ``dtype``, as a load does it: the rotary frequencies stay fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte; token 0 ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<eos>", *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def bos_tokenizer(added: bool = True) -> PreTrainedTokenizerFast:
    """:func:`byte_tokenizer` with one more token, a BOS, which it puts before every text if ``added``."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    if added:
        first = [("<bos>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=first)
    return tokenizer


def tiny_folder(folder: Path, *, tokenizer: bool = True, **changes) -> str:
    """Save :func:`tiny_model` with ``changes``, and :func:`byte_tokenizer` if asked, to ``folder``."""
    tiny_model(**changes).save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return str(folder)


def tokens(samples: int = 4, length: int = 12, seed: int = 1, vocabulary: int = BYTES) -> torch.Tensor:
    """Random token ids, int64 (samples, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (samples, length), generator=generator)


def encoded(tokenizer, recipe, *parts) -> list:
    """Each part of instruction rows as examples, as a recovery by ``recipe`` takes them."""
    from mpstudy.recovery.examples import encode

    return [encode(tokenizer, rows, recipe.cutoff, recipe.loss_on) for rows in parts]


def pruned_model(ratio: float = 0.5, seed: int = 0, **changes) -> LlamaForCausalLM:
    """:func:`tiny_model` with random units removed across layers, so that its layers differ in size."""
    from mpstudy import pruners
    from mpstudy.structure import plan, surgery, units

    model = tiny_model(**changes)
    found = units.prunable_units(model, "0-1")
    scores = pruners.score("random", model, [], found, seed=seed)
    return surgery.remove_units(model, plan.make_plan(scores, found, ratio, "global"))
