"""Surgery: remove units for good, or zero them in place (the check on the removal)."""

import copy

import torch
from torch import nn

from ..errors import StudyError
from .families import family, head_dim, layers, linear_layers
from .units import HIDDEN, UnitSet, hidden_set, unit_sets


def remove_units(model: nn.Module, plan) -> nn.Module:
    """Cut the planned units out of ``model`` in place, so that its tensors get smaller; returns ``model``.

    ``plan`` is a :class:`mpstudy.structure.plan.Plan`. Raises :class:`StudyError` if the plan does not fit the model.
    """
    for unit_set, removed in _planned(model, plan):
        kept = torch.ones(unit_set.count, dtype=torch.bool)
        kept[removed] = False
        for name in unit_set.names:
            parts = [part for part in unit_set.slices if part.name == name]
            lines = torch.cat(
                [part.start + kept.repeat_interleave(part.rows_per_unit).nonzero().squeeze(1) for part in parts]
            )
            parameter, dim = model.get_parameter(name), parts[0].dim
            _replace(model, name, parameter.detach().index_select(dim, lines.to(parameter.device)).contiguous())
    return _fitted(model)


def zero_units(model: nn.Module, plan) -> nn.Module:
    """Set every weight of the planned units to zero in place: the same function as removing them; returns ``model``."""
    with torch.no_grad():
        for unit_set, removed in _planned(model, plan):
            for part in unit_set.slices:
                of_units = part.view(model.get_parameter(part.name), unit_set.count).movedim(part.dim, 0)
                of_units[removed.to(of_units.device)] = 0
    return model


def resize(model: nn.Module, counts: dict[str, int]) -> nn.Module:
    """Give each unit set the number of units in ``counts`` (contents arbitrary), for loading a pruned checkpoint."""
    for unit_set in all_sets(model):
        for name in unit_set.names:
            parts = [part for part in unit_set.slices if part.name == name]
            parameter, shape = model.get_parameter(name), list(model.get_parameter(name).shape)
            shape[parts[0].dim] = counts[unit_set.key] * sum(part.rows_per_unit for part in parts)
            _replace(model, name, torch.empty(shape, dtype=parameter.dtype, device=parameter.device))
    return _fitted(model)


def _fitted(model: nn.Module) -> nn.Module:
    """The model, which knows its hidden size, and each attention of which knows its number of heads."""
    adapter, hidden = family(model.config), model.get_input_embeddings().weight.shape[1]
    if hidden != model.config.hidden_size:
        model.config.head_dim = head_dim(model.config)
        model.config.hidden_size = hidden
        model.tie_weights()
    for layer in layers(model):
        adapter.fit(layer.get_submodule(adapter.attention))
    return model


def unit_counts(model: nn.Module) -> dict[str, int]:
    """Units per set in every layer, as they are now."""
    return {unit_set.key: unit_set.count for unit_set in all_sets(model)}


def ungroup(model: nn.Module) -> nn.Module:
    """A copy of a grouped-query model in which each query head has its own copy of its KV head.

    The function is the same; units become single heads as in LLaMA-7B. Raises :class:`StudyError` for a family without
    ``k_proj`` and ``v_proj``.
    """
    if not {"k_proj", "v_proj"} <= set(linear_layers(model)):
        raise StudyError(f"KV heads of {model.config.model_type} cannot be copied: it has no k_proj and v_proj")
    config = copy.deepcopy(model.config)
    repeats = config.num_attention_heads // config.num_key_value_heads
    config.num_key_value_heads = config.num_attention_heads
    state = dict(model.state_dict())
    for name, value in state.items():
        if ".k_proj." in name or ".v_proj." in name:
            heads = value.reshape(-1, head_dim(config), *value.shape[1:])
            state[name] = heads.repeat_interleave(repeats, dim=0).reshape(-1, *value.shape[1:])
    twin = type(model)(config)
    twin.load_state_dict(state, strict=True)
    twin.generation_config = model.generation_config
    return twin.eval()


def all_sets(model: nn.Module):
    """The unit sets of every layer and kind."""
    for layer in range(len(layers(model))):
        yield from unit_sets(model, layer)


def sets_of(model: nn.Module, keys) -> list[UnitSet]:
    """The unit sets among those of the model that ``keys`` name."""
    hidden = [hidden_set(model)] if HIDDEN in keys else []
    return [unit_set for unit_set in [*all_sets(model), *hidden] if unit_set.key in keys]


def _planned(model: nn.Module, plan) -> list:
    """The sets that lose units, with the units. All are checked first: a plan that does not fit changes nothing."""
    sets = {unit_set.key: unit_set for unit_set in sets_of(model, plan.removed)}
    for key in plan.removed:
        if key not in sets or plan.counts[key] != sets[key].count:
            have = sets[key].count if key in sets else "no such set"
            raise StudyError(
                f"the plan does not fit this model: {key} has {plan.counts[key]} units in the plan, {have} here"
            )
    return [(sets[key], removed) for key, removed in plan.removed.items() if len(removed)]


def _replace(model: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    requires_grad = getattr(module, leaf).requires_grad
    setattr(module, leaf, nn.Parameter(value, requires_grad=requires_grad))
    if isinstance(module, nn.Linear) and leaf == "weight":
        module.out_features, module.in_features = value.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = value.shape[1]
