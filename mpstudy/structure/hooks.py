"""Units taken out of the forward pass, and a look at what linear layers read in it, with no change of a weight."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import StudyError
from .units import HIDDEN, Slice, Units, UnitSet


@contextmanager
def masked(model: nn.Module, units: Units, keep: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """For the length of the block the units that ``keep`` (key of a set -> bool (count,)) does not keep contribute
    nothing: their columns of the input of o or down are zero. The logits are those of the model without these units.
    """

    def hook_of(kept: torch.Tensor, part: Slice) -> Callable:
        gone = (~kept).repeat_interleave(part.rows_per_unit)

        def fill(module: nn.Module, arguments: tuple) -> tuple:
            inputs = arguments[0].clone()
            columns = inputs.narrow(-1, part.start, len(gone))
            columns.masked_fill_(gone.to(inputs.device), 0)
            return (inputs, *arguments[1:])

        return fill

    parts = {key: reader(units[key]) for key in keep}
    hooks = {parts[key].name: hook_of(kept, parts[key]) for key, kept in keep.items() if not kept.all()}
    with _hooked(model, hooks):
        yield


@contextmanager
def watched(model: nn.Module, names: Iterable[str], note: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """For the length of the block ``note(name, inputs)`` is given what the linear layer of each weight in ``names``
    reads at each forward pass, float32 (tokens, columns).
    """

    def hook_of(name: str) -> Callable:
        return lambda module, arguments: note(name, arguments[0].detach().flatten(0, -2).float())

    with _hooked(model, {name: hook_of(name) for name in names}):
        yield


def reader(unit_set: UnitSet) -> Slice:
    """The slice of the linear layer that reads the units of a set: columns of o, or of down."""
    return next(part for part in unit_set.slices if part.dim == 1)


def check_maskable(units: Units) -> None:
    """:class:`StudyError` for hidden dimensions, which no single layer reads."""
    if any(unit_set.kind == HIDDEN for unit_set in units):
        raise StudyError("hidden dimensions cannot be masked: head groups and MLP channels can")


@contextmanager
def _hooked(model: nn.Module, hooks: Mapping[str, Callable]) -> Iterator[None]:
    """Hooks on the inputs of the layers of weights, by the weight's name."""
    handles = []
    try:
        for name, hook in hooks.items():
            handles.append(model.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
