"""Which families can be sliced, and the config of a model that is."""

import copy
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import MistralConfig

from ..errors import StudyError
from ..structure.checkpoint import OF_LLAMA
from ..structure.families import family, head_dim
from ..structure.sliced import SLICED_FROM

# What a norm of the family adds to its weight to make its gain. Each has a root mean square norm before attention and
# one before MLP, and adds what they give to the states as it is, but for a factor.
OFFSETS = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "granite", "glm", "phi3"), 0.0) | {"gemma": 1.0}
REASONS = dict.fromkeys(("opt", "gpt_neox"), "its norms subtract the mean")
REASONS |= dict.fromkeys(("gemma2", "gemma3_text", "glm4"), "norms follow its attention and MLP, and keep their gains")


def check_sliceable(config: Any) -> None:
    """:class:`StudyError` for a family that cannot be sliced, or a model that is sliced already."""
    family(config)
    if config.model_type not in OFFSETS:
        reason = REASONS.get(config.model_type, "its norms are not known")
        raise StudyError(f"models of {config.model_type} cannot be sliced: {reason}; those of {', '.join(OFFSETS)} can")
    if getattr(config, SLICED_FROM, None) is not None:
        raise StudyError(f"the model is sliced already, from a hidden size of {getattr(config, SLICED_FROM)}")


def sliced_config(dense: Any, size: int) -> Any:
    """The config of a sliced model of hidden size ``size``: heads as wide as before, input and output embeddings apart.
    That of a Llama refuses a number of heads that does not divide the hidden size; then it is that of the Mistral which
    computes the same. Raises :class:`StudyError` as :func:`check_sliceable`, and where no config can name the size.
    """
    check_sliceable(dense)
    config, heads = copy.deepcopy(dense), dense.num_attention_heads
    if dense.model_type == "llama" and size % heads and not (dense.attention_bias or dense.mlp_bias):
        shared = {name: value for name, value in dense.to_dict().items() if name not in OF_LLAMA}
        config = MistralConfig(**shared, sliding_window=None)
    changes = {"hidden_size": size, "head_dim": head_dim(dense), "tie_word_embeddings": False}
    config.update(changes | {SLICED_FROM: dense.hidden_size})
    try:
        config.validate()
    except StrictDataclassError as error:
        raise StudyError(
            f"a config of {dense.model_type} cannot name a hidden size of {size} with {heads} heads: cut another share"
        ) from error
    return config
