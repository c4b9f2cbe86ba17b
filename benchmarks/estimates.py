"""The arithmetic of the tables: ratios of measurements, and what they mean for models of LLaMA's sizes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LORA_VALUES = (11, 3)  # inputs and outputs of a layer's seven projections: 11 times hidden, 3 times MLP
LORA_BYTES = 16  # a value: fp32 weight, gradient and two moments
CHECKPOINTED = 1024  # tokens of a backward pass of recovery
PER_VALUE = 40  # bytes of a layer at work for each token and (hidden + MLP) value
CALIBRATION = 10 * 64  # tokens of one gradient of scoring


@dataclass(frozen=True)
class Shape:
    """The sizes of a LLaMA that memory and time follow from."""

    prunable: float  # parameters of attention and MLP in all layers
    parameters: float  # all of them
    hidden: int
    mlp: int
    layers: int

    @classmethod
    def of(cls, *, hidden: int, mlp: int, layers: int, vocabulary: int) -> "Shape":
        """A LLaMA without grouped queries and with an output embedding of its own."""
        prunable = layers * (4 * hidden**2 + 3 * hidden * mlp)
        norms_and_embeddings = layers * 2 * hidden + hidden + 2 * hidden * vocabulary
        return cls(prunable, prunable + norms_and_embeddings, hidden, mlp, layers)

    @property
    def width(self) -> int:
        """(hidden + MLP) values of one token in all layers, which activations grow with."""
        return self.layers * (self.hidden + self.mlp)


LARGE = {
    "LLaMA-7B": Shape(6.476e9, 6.738e9, 4096, 11008, 32),
    "LLaMA-13B": Shape(12.688e9, 13.016e9, 5120, 13824, 40),
    "LLaMA-2-70B": Shape(68.452e9, 68.977e9, 8192, 28672, 80),
}


def median_ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """The median over rounds of value to baseline, each pair measured in one round."""
    return statistics.median(value / plain for value, plain in zip(values, baseline, strict=True))


def flops_per_second(shape: Shape, tokens: int, seconds: float) -> float:
    """Of a forward and backward pass over ``tokens`` in ``seconds``: 6 operations a parameter and token."""
    return 6 * shape.parameters * tokens / seconds


def activation_bytes(shape: Shape, tokens: int, memory: float) -> float:
    """Bytes of activations for each token and (hidden + MLP) value, in fp32.

    ``memory``: the extra peak of the plain solver over the bytes of the weights, of which one copy of the prunable
    parameters is its state and the rest is activations and buffers.
    """
    return 4 * (memory * shape.parameters - shape.prunable) / (tokens * shape.width)


def scoring(shape: Shape, per_value: float, rate: float) -> dict[str, float]:
    """Memory (GB) and minutes of one gradient of :data:`CALIBRATION` tokens, bf16 weights and fp32 state.

    ``per_value``: :func:`activation_bytes`, in fp32. ``rate``: operations a second.
    """
    return {
        "weights_gb": 2 * shape.parameters / 1e9,
        "activations_gb": per_value / 2 * CALIBRATION * shape.width / 1e9,
        "plain_state_gb": 4 * shape.prunable / 1e9,
        "spectral_state_gb": 8 * shape.prunable / 1e9,
        "minutes": 6 * shape.parameters * CALIBRATION / rate / 60,
    }


def recovery(shape: Shape, rank: int, cards: Sequence[int]) -> dict:
    """Memory (GB) of LoRA recovery: bf16 weights, LoRA values, and what each of so many ``cards`` holds.

    Weights and LoRA values are shared by the cards (FSDP), the layer at work is whole on each of several, and
    activations of :data:`CHECKPOINTED` tokens are kept at the borders of layers and within the layer at work.
    """
    per_hidden, per_mlp = LORA_VALUES
    lora = LORA_BYTES * rank * (per_hidden * shape.hidden + per_mlp * shape.mlp) * shape.layers
    weights, layer = 2 * shape.parameters, 2 * shape.parameters / shape.layers
    kept = CHECKPOINTED * (2 * shape.hidden * shape.layers + 2 * PER_VALUE * (shape.hidden + shape.mlp))
    per_card = {str(n): ((weights + lora) / n + (layer if n > 1 else 0) + kept) / 1e9 for n in cards}
    return {"weights_gb": weights / 1e9, "lora_gb": lora / 1e9, "per_card_gb": per_card}
