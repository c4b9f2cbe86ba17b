"""The inputs of the campaign: a tiny Llama with a tokenizer of bytes, tokens, a text, and a study of one notebook."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 257
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.15,
}  # fmt: skip
NOTEBOOK = """
from mpstudy import record
run = record.start()
run.table("squares", [{"seed": seed, "square": float(seed) ** 2} for seed in run.track(seeds, "squares")])
(run.tables / "squares.csv").write_text("seed,square\\n1,1.0\\n")
"""


def make(folder: Path) -> None:
    """Write all inputs into ``folder``: ``model``, ``tokens.npy``, ``book.txt`` and ``study``."""
    model(folder / "model")
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=(4, 16))
    np.save(folder / "tokens.npy", tokens, allow_pickle=False)
    (folder / "book.txt").write_text("It was the best of times, it was the worst of times. " * 20, encoding="utf-8")
    study(folder / "study", "A study of squares.", {"seeds": [0, 1, 2]}, NOTEBOOK)


def model(folder: Path) -> Path:
    """A checkpoint of random weights with its tokenizer."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: index for index, token in enumerate(["<eos>", *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    whole.save_pretrained(folder)
    return folder


def study(folder: Path, description: str, parameters: dict, code: str) -> Path:
    """Notebooks with one notebook ``write``, and the profile ``tiny`` that runs it."""
    profiles = folder / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    cells = [
        _cell("markdown", "# Squares\n\nOf *numbers*."),
        _cell("code", "\n".join(f"{name} = {value!r}" for name, value in parameters.items()), "parameters"),
        _cell("code", code),
        _cell("code", "run.finish()"),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks" / "write.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    runs = [{"name": "write", "notebook": "write", "minutes": 0.1}]
    profile = {"description": description, "threads": 1, "memory_gb": 0.1, "disk_gb": 0, "reference_seconds": 0}
    (profiles / "tiny.yaml").write_text(yaml.safe_dump(profile | {"runs": runs}), encoding="utf-8")
    return profiles


def _cell(kind: str, source: str, *tags: str) -> dict:
    cell = {"cell_type": kind, "metadata": {"tags": list(tags)} if tags else {}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})
