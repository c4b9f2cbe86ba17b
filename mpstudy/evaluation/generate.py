"""Texts that a model writes."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, new_tokens: int = 48
) -> list[str]:
    """The greedy continuation of each prompt, up to the end of text or ``new_tokens`` tokens."""
    answers = []
    for prompt in prompts:
        tokens = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        written = model.generate(**tokens, **options)[0, tokens.input_ids.shape[1] :]
        answers.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return answers
