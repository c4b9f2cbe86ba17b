"""Model families: how each names the parts of its layers, and how units lie in them.

To add a family, write an adapter (:class:`Family`) and register it in :data:`FAMILIES` by the ``model_type`` of its
config. Tests over all families (``tests/structure/test_families.py``) then check it: zeroing units must equal removing
them.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from ..errors import StudyError
from ..registry import Registry


@dataclass(frozen=True)
class Part:
    """A linear layer inside attention or MLP, in which each unit has ``rows_per_unit`` rows (``dim`` 0) or columns
    (``dim`` 1), from row or column ``start`` on. Rows of several kinds may share a layer (a fused projection).
    """

    layer: str  # its name inside attention or MLP
    rows_per_unit: int
    dim: int = 0
    start: int = 0


class Family(ABC):
    """An adapter: where a family has its layers, and which rows and columns make a head group and an MLP channel."""

    layers = "model.layers"
    attention, mlp = "self_attn", "mlp"  # inside a layer; "" is the layer itself
    width = "intermediate_size"  # what a config calls the number of MLP channels
    packs = True  # whether position_ids that begin anew keep the examples of a row apart in its attention

    @abstractmethod
    def heads(self, attention: nn.Module) -> tuple[int, list[Part]]:
        """The number of head groups and the parts that hold them. The first part is the root, whose rows are counted
        as channels.
        """

    @abstractmethod
    def channels(self, mlp: nn.Module) -> tuple[int, list[Part]]:
        """The number of MLP channels and the parts that hold them."""

    @abstractmethod
    def standard(self, config, groups: int, channels: int) -> dict:
        """The changes of ``config`` that describe a model with so many head groups and MLP channels in every layer."""

    def fit(self, attention: nn.Module) -> None:  # noqa: B027 most families need nothing
        """Tell an attention module about its new number of heads; most read it off their weights."""


class Llama(Family):
    """``self_attn.{q,k,v,o}_proj`` and ``mlp.{gate,up,down}_proj``; biases optional."""

    def heads(self, attention):
        head = attention.head_dim
        groups = attention.k_proj.out_features // head
        query = attention.q_proj.out_features // groups
        return groups, [Part("q_proj", query), Part("k_proj", head), Part("v_proj", head), Part("o_proj", query, 1)]

    def channels(self, mlp):
        return mlp.gate_proj.out_features, [Part("gate_proj", 1), Part("up_proj", 1), Part("down_proj", 1, 1)]

    def standard(self, config, groups, channels):
        heads = groups * (config.num_attention_heads // config.num_key_value_heads)
        changes = {"num_key_value_heads": groups, "num_attention_heads": heads, "head_dim": head_dim(config)}
        return changes | {self.width: channels}


class Glm(Llama):
    """As Llama, with gate and up one after the other in ``gate_up_proj``."""

    def channels(self, mlp):
        count = mlp.down_proj.in_features
        return count, [Part("gate_up_proj", 1), Part("gate_up_proj", 1, 0, count), Part("down_proj", 1, 1)]


class Phi3(Glm):
    """As GLM, and q, k and v one after the other in ``qkv_proj``."""

    def heads(self, attention):
        head, query = attention.head_dim, attention.head_dim * attention.num_key_value_groups
        groups = attention.o_proj.in_features // query
        parts = [Part("qkv_proj", query), Part("qkv_proj", head, 0, groups * query)]
        return groups, [*parts, Part("qkv_proj", head, 0, groups * (query + head)), Part("o_proj", query, 1)]

    def fit(self, attention):
        groups, _ = self.heads(attention)
        attention.config = copy.copy(attention.config)  # the forward pass reads the heads of this layer from it
        attention.config.num_attention_heads = groups * attention.num_key_value_groups
        attention.num_key_value_heads = groups


class Opt(Family):
    """``fc1`` and ``fc2`` in the layer itself, no gate, biases."""

    layers = "model.decoder.layers"
    mlp = ""
    width = "ffn_dim"
    packs = False  # its attention mask is made without the positions of the tokens

    def heads(self, attention):
        head = attention.head_dim
        return attention.q_proj.out_features // head, [
            Part("q_proj", head), Part("k_proj", head), Part("v_proj", head), Part("out_proj", head, 1)
        ]  # fmt: skip

    def channels(self, mlp):
        return mlp.fc1.out_features, [Part("fc1", 1), Part("fc2", 1, 1)]

    def fit(self, attention):
        attention.num_heads, _ = self.heads(attention)

    def standard(self, config, groups, channels):
        return _same_heads(config, groups) | {self.width: channels}


class GptNeoX(Family):
    """q, k and v of a head one after the other in ``query_key_value``; no gate, biases."""

    layers = "gpt_neox.layers"
    attention = "attention"

    def heads(self, attention):
        head = attention.head_size
        return attention.dense.in_features // head, [Part("query_key_value", 3 * head), Part("dense", head, 1)]

    def channels(self, mlp):
        return mlp.dense_h_to_4h.out_features, [Part("dense_h_to_4h", 1), Part("dense_4h_to_h", 1, 1)]

    def standard(self, config, groups, channels):
        return _same_heads(config, groups) | {self.width: channels}


def _same_heads(config, groups: int) -> dict:
    """No changes, for a family whose heads always fill the hidden size."""
    if groups != config.num_attention_heads:
        raise StudyError(
            f"a config of {config.model_type} cannot name {groups} heads of {config.num_attention_heads}: only its MLP "
            "channels may be pruned for a standard checkpoint"
        )
    return {}


FAMILIES = Registry("model family")
FAMILIES.add("llama", Llama())
FAMILIES.add("mistral", Llama())
FAMILIES.add("qwen2", Llama())
FAMILIES.add("qwen3", Llama())
FAMILIES.add("gemma", Llama())
FAMILIES.add("gemma2", Llama())
FAMILIES.add("gemma3_text", Llama())
FAMILIES.add("granite", Llama())
FAMILIES.add("glm", Glm())
FAMILIES.add("glm4", Glm())
FAMILIES.add("phi3", Phi3())
FAMILIES.add("opt", Opt())
FAMILIES.add("gpt_neox", GptNeoX())


def family(config) -> Family:
    """The adapter for ``config.model_type``; an unknown family raises :class:`StudyError`."""
    kind = getattr(config, "model_type", "?")
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise StudyError(
            f"no adapter for model family {kind!r}; known: {known}. Add one to mpstudy/structure/families.py"
        )
    return FAMILIES[kind]


def head_dim(config) -> int:
    """Channels of a head, which a config names or leaves to the hidden size."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def layers(model: nn.Module) -> nn.ModuleList:
    """The layers of a model."""
    return model.get_submodule(family(model.config).layers)


def linear_layers(model: nn.Module) -> list[str]:
    """The names, inside a layer's attention and MLP, of the linear layers that hold units: what LoRA adapts."""
    adapter, layer = family(model.config), layers(model)[0]
    parts = adapter.heads(layer.get_submodule(adapter.attention))[1]
    parts += adapter.channels(layer.get_submodule(adapter.mlp))[1]
    return list(dict.fromkeys(part.layer for part in parts))
