"""Biases for o and down projections that have none, told by the model's config, so that every checkpoint knows them."""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ..errors import StudyError
from ..structure.units import unit_sets
from .outputs import output_of

FLAGS = {"attention": ("attention_bias", "enable_bias"), "mlp": ("mlp_bias", "enable_bias")}


def check_biases(config: Any, kinds: Collection[str]) -> None:
    """:class:`StudyError` if the output projections of one of ``kinds`` (attention, mlp) cannot have a bias in a model
    of this ``config``.
    """
    _biased_twin(config, kinds)


def add_biases(model: Any, kinds: Collection[str]) -> None:
    """Give the output projections of ``kinds`` a bias of zeros in every layer where they have none, in place, and what
    else the config cannot name without: the function is the same. Raises as :func:`check_biases` does.
    """
    twin = _biased_twin(model.config, kinds)
    for name, wanted in twin.named_modules():
        linear = model.get_submodule(name)
        if isinstance(wanted, nn.Linear) and wanted.bias is not None and linear.bias is None:
            linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
    model.config.update(_flags(model.config, kinds))


def _flags(config: Any, kinds: Collection[str]) -> dict[str, bool]:
    """The changes that give a family biases, for those of :data:`FLAGS` that its config has."""
    return {flag: True for kind in kinds for flag in FLAGS[kind] if hasattr(config, flag)}


def _biased_twin(config: Any, kinds: Collection[str]) -> nn.Module:
    """A model of this config with biases, without weights."""
    biased = copy.deepcopy(config)
    biased.update(_flags(config, kinds))
    with torch.device("meta"):
        twin = AutoModelForCausalLM.from_config(biased, trust_remote_code=False)
    for unit_set in unit_sets(twin, 0):
        linear, _ = output_of(twin, unit_set)
        if unit_set.kind in kinds and linear.bias is None:
            raise StudyError(
                f"repair 'bias' cannot be saved: no config of {config.model_type} gives the output of its "
                f"{unit_set.kind} a bias; choose another repair"
            )
    return twin
