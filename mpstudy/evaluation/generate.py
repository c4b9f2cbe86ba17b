"""Texts that a model writes."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..inputs.tokens import leading


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, new_tokens: int = 48
) -> list[str]:
    """The greedy continuation of each prompt, up to the end of text or ``new_tokens`` tokens. A prompt begins with BOS
    where the tokenizer's own texts do.
    """
    answers = []
    for prompt in prompts:
        ids = leading(tokenizer) + tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tokens = torch.tensor([ids], device=model.device)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        written = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[0, len(ids) :]
        answers.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return answers
