"""SliceGPT (arXiv 2401.15024): rotate the hidden states to their principal directions, and cut the trailing ones.

A root mean square norm without a gain commutes with rotations. So the gains are folded into the linear layers that read
a norm, and between two norms the states may be kept in any orthonormal basis: here that of the leading eigenvectors of
what the norm puts out on calibration text. A basis is found of what the model computes with all cuts before it, here in
the dense coordinates: the states are projected on each basis before they go on.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import StudyError
from ..parameters import Ratio, checked
from ..structure import surgery
from ..structure.families import layers
from ..structure.sliced import NORMS, SHORTCUTS, SlicedNorm, share_of, with_shortcuts
from ..structure.units import UnitSet, unit_sets
from ..structure.walk import run_layers
from .config import OFFSETS, sliced_config

DAMPING = 0.01  # of the mean diagonal
STEP = 8  # the hidden size that is left is a multiple of it
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def kept_size(hidden: int, cut: float) -> int:
    """The hidden size that is left of ``hidden``: the multiple of 8 that is nearest to ``(1 - cut) * hidden``, at least
    8, or ``hidden`` itself at a cut of 0. Raises :class:`StudyError` for a cut outside [0, 1).
    """
    checked(Ratio, "the cut", cut)
    return hidden if cut == 0 else min(hidden, max(STEP, STEP * int((1 - cut) * hidden / STEP + 0.5)))


@torch.no_grad()
def slice_model(
    model: PreTrainedModel,
    batches: Sequence[torch.Tensor],
    cut: float,
    *,
    log: Callable[[dict], None] = lambda row: None,
) -> PreTrainedModel:
    """A new model with the share ``cut`` of the hidden size gone; ``model`` is not changed.

    Parameters
    ----------
    batches: int64 (samples, tokens) each: calibration, of many times more tokens than the hidden size.
    log: receives a row for each layer as it is made: ``layer``, ``kept`` (the share of the squares of what the norm
        after it puts out that is left), ``seconds``.

    At a cut of 0 the model computes what the dense one does. Input and output embeddings are separate afterwards.
    Raises :class:`StudyError` for a family or a size that cannot be sliced, and for states that are not finite.
    """
    config = sliced_config(model.config, kept_size(model.config.hidden_size, cut))
    twin = with_shortcuts(AutoModelForCausalLM.from_config(config, dtype=model.dtype))
    surgery.resize(twin, surgery.unit_counts(model))
    signal = _Signal(model, batches, config.hidden_size)
    scale = _scale(model) / _scale(twin)
    weights = {EMBEDDING: _double(model.get_input_embeddings()) * scale @ signal.basis}
    for number, block in enumerate(layers(model)):
        begin = time.perf_counter()
        for units, norm, shortcut in zip(unit_sets(model, number), NORMS, SHORTCUTS):
            before, after = signal.basis, signal.advance(block, number, units.kind)
            turned = _turned(model, units, _gain(model, block.get_submodule(norm)), before, after)
            turned[f"model.layers.{number}.{shortcut}"] = before.T @ after
            weights |= {name: weight.to(model.dtype) for name, weight in turned.items()}
        log({"layer": number, "kept": signal.kept, "seconds": time.perf_counter() - begin})
    weights[HEAD] = _double(model.get_output_embeddings()) * _gain(model, model.base_model.norm) @ signal.basis
    dense, names = model.state_dict(), twin.state_dict().keys()
    twin.load_state_dict({name: value for name, value in dense.items() if name in names} | weights, strict=True)
    twin.generation_config = model.generation_config
    return twin.to(model.device).eval()


class _Signal:
    """The states of the calibration samples as the sliced model has them, in the coordinates of the dense one; of what
    the next norm makes of them the leading directions ``basis``, float64 (hidden, size), and ``kept``, the share of the
    squares that these hold.
    """

    def __init__(self, model: PreTrainedModel, batches: Sequence[torch.Tensor], size: int):
        self.size, self.norm = size, SlicedNorm(model.config.hidden_size, model.config.rms_norm_eps)
        self.states, self.options = _inputs(model, batches)
        self._find_basis("layer 0")

    def advance(self, block: Any, number: int, kind: str) -> torch.Tensor:
        """Cut the states to the basis, add to them what the attention or the MLP of a block makes of them, and return
        the basis of the norm that follows.
        """
        for index, states in enumerate(self.states):
            basis = self.basis.to(states.dtype)
            cut = states @ basis @ basis.T
            if kind == "attention":
                change, _ = block.self_attn(hidden_states=block.input_layernorm(cut), **self.options[index][number])
            else:
                change = block.mlp(block.post_attention_layernorm(cut))
            self.states[index] = cut + share_of(block) * change
        self._find_basis(f"the {kind} of layer {number}")
        return self.basis

    def _find_basis(self, place: str) -> None:
        """Principal directions in float64, about the origin: the norm takes no mean."""
        hidden = self.norm.dense
        gram = torch.zeros(hidden, hidden, dtype=torch.float64, device=self.states[0].device)
        for states in self.states:
            signal = self.norm(states).flatten(0, -2).double()
            gram.addmm_(signal.T, signal)
        if not torch.isfinite(gram).all():
            raise StudyError(f"the states at {place} are not finite: the model cannot be sliced on these samples")
        damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(hidden, dtype=gram.dtype, device=gram.device)
        self.basis = torch.linalg.eigh(damped).eigenvectors.flip(1)[:, : self.size]  # the largest first
        self.kept = float((self.basis * (gram @ self.basis)).sum() / gram.trace())


def _inputs(model: PreTrainedModel, batches: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[list[dict]]]:
    """Batch by batch the states (samples, tokens, hidden) at the first layer, and what else each layer is called with:
    masks of sliding windows are not the same in every one.
    """
    states: list[torch.Tensor] = []
    options: list[list[dict]] = []

    def note(module: nn.Module, arguments: tuple, given: dict) -> None:
        if module is first:
            states.append(arguments[0])
            options.append([])
        options[-1].append(given)

    first = layers(model)[0]
    hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in layers(model)]
    try:
        for batch in batches:
            run_layers(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return states, options


def _turned(
    model: PreTrainedModel, units: UnitSet, gain: torch.Tensor, before: torch.Tensor, after: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The weights of the attention or the MLP of a layer, float64 by name: those that read the norm, with its ``gain``,
    in the basis ``before``; that which writes to the states, with its bias, in the basis ``after``.
    """
    turned = {}
    for name, dim in {part.name: part.dim for part in units.slices if part.name.endswith(".weight")}.items():
        weight, bias = model.get_parameter(name).double(), name.removesuffix("weight") + "bias"
        turned[name] = after.T @ weight if dim == 1 else weight * gain @ before
        if dim == 1 and model.get_submodule(name.removesuffix(".weight")).bias is not None:
            turned[bias] = after.T @ model.get_parameter(bias).double()
    return turned


def _gain(model: PreTrainedModel, norm: Any) -> torch.Tensor:
    return _double(norm) + OFFSETS[model.config.model_type]


def _double(module: Any) -> torch.Tensor:
    return module.weight.double()


def _scale(model: PreTrainedModel) -> float:
    """What Gemma multiplies embeddings by: the root of the hidden size."""
    return getattr(model.get_input_embeddings(), "scalar_embed_scale", 1.0)
