"""The calibration loss at shifted weights, ``L(w + d + u)``, and its gradient, without writing to a weight.

While it is evaluated, every ``functional.linear`` on a prunable weight computes with ``w + d + u``. The sum is formed
where it is needed, in the forward and again in the backward pass, in one buffer; the noise u comes from its seed each
time. Gradients are handed on block by block as they appear. So neither shifted weights nor a set of gradients is held,
and the model cannot be left changed, whatever happens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import StudyError
from ..structure.units import HIDDEN, Units
from ..structure.weights import draw_one
from .loss import causal_loss, loss_scale, only_trainable
from .torch_internals import product, product_node

Block = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Noise:
    """``u ~ N(0, sigma^2 diag(w^2))`` (``relative``) or N(0, sigma^2 I) (``isotropic``), drawn anew from ``seed``."""

    sigma: float
    kind: str
    seed: tuple[int, int]
    sign: int = 1


class ShiftedLoss:
    """The mean loss over ``batches`` and ``draws`` as a function of the offset d.

    Parameters
    ----------
    model, units: whose prunable parameters are shifted; every one must be the weight or bias of a linear layer.
    batches: equally large int64 tensors (samples, tokens).
    draws: noise draws; ``None`` stands for no noise. The loss is their mean.
    state_device: where offsets and gradients live; the default is where each weight lives.
    """

    def __init__(self, model: nn.Module, batches, units: Units, draws=(None,), state_device=None):
        if any(unit_set.kind == HIDDEN for unit_set in units):
            raise StudyError(
                "hidden dimensions are scored by taylor, taylor2, taylor-mix, taylor-vector, l1, l2 or random"
            )
        self.model, self.units, self.state_device = model, units, state_device
        self.parts = [(batch, draw) for draw in draws for batch in batches]
        self.weights = {name: weight.detach() for name, weight in units.parameters(model).items()}
        self.scale = loss_scale(model)
        self.calls = 0
        self._block_of = {name: unit_set.key for unit_set in units for name in unit_set.names}
        self._sizes = {unit_set.key: len(unit_set.names) for unit_set in units}
        self._index = {name: index for index, name in enumerate(units.names)}
        away = set(units.offloaded(model))
        self._names = {id(model.get_parameter(name)): name for name in units.names if name not in away}
        self._away = [(model.get_submodule(name.rpartition(".")[0]), name) for name in away]
        self._buffers: dict[tuple, torch.Tensor] = {}
        self._sums: Block = {}

    def zeros(self) -> Block:
        """An offset of zeros, at least in float32: most offsets are below half a unit of a half-precision weight."""
        return {
            name: torch.zeros(
                weight.shape,
                dtype=torch.promote_types(weight.dtype, torch.float32),
                device=self.state_device or weight.device,
            )
            for name, weight in self.weights.items()
        }

    def __call__(self, d: Block | None, consume: Callable[[Block], None]) -> float:
        """The loss (nats) at w + d (``None``: at w).

        ``consume`` receives the gradient of each unit set once (name -> tensor); from then on the block's offset may be
        overwritten. Raises :class:`StudyError` naming the step when the loss is not finite, and the parameter when it
        has no gradient.
        """
        loss, self._sums = 0.0, {}
        for number, (batch, draw) in enumerate(self.parts):
            last = number == len(self.parts) - 1
            loss += self._part(batch, _Point(self, d, draw, consume if last else self._add), number)
        self.calls += 1
        return loss

    def _part(self, batch, point: "_Point", number: int) -> float:
        embedding = self.model.get_input_embeddings().weight
        with only_trainable(self.model, ()), point:
            loss = causal_loss(self.model, batch if embedding.is_meta else batch.to(embedding.device))
            if not torch.isfinite(loss):
                raise StudyError(
                    f"the loss is {loss.item()} at step {self.calls}, batch {number}; the weights, the tokens or the "
                    "settings are not usable"
                )
            (loss * (self.scale / len(self.parts))).backward()
        if missing := [name for name in self.weights if name not in point.seen]:
            raise StudyError(f"{missing[0]} has no gradient: it is not the weight of a linear layer that the loss uses")
        return loss.item() / len(self.parts)

    def name_of(self, weight) -> str | None:
        """The name of a prunable parameter; one that is loaded for each use is another object each time."""
        loaded = (name for module, name in self._away if getattr(module, name.rpartition(".")[2]) is weight)
        return self._names.get(id(weight)) or next(loaded, None)

    def _add(self, block: Block) -> None:
        """Gradients of all passes but the last are summed; a single pass needs no such memory."""
        for name, gradient in block.items():
            self._sums[name] = self._sums[name].add_(gradient) if name in self._sums else gradient


class _Point(TorchFunctionMode):
    """Intercepts the linear layers of one pass and collects their gradients."""

    def __init__(self, loss: ShiftedLoss, d: Block, draw: Noise | None, consume):
        super().__init__()
        self.loss, self.d, self.draw, self.consume = loss, d, draw, consume
        self.anchor = torch.zeros((), requires_grad=True)  # the layers before have no gradient that would call us
        self.pending: dict[str, Block] = {}
        self.seen: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.linear:
            x, weight, bias = (*args, *(kwargs or {}).values(), None)[:3]
            if name := self.loss.name_of(weight):
                names = name, None if bias is None else self.loss.name_of(bias)
                return _ShiftedLinear.apply(x, self.anchor, weight.detach(), bias, names, product_node(x), self)
        return func(*args, **(kwargs or {}))

    def shift(self, name: str, like: torch.Tensor) -> torch.Tensor | None:
        """``d + u`` of a parameter on its device; where there is noise, in a buffer that the next call overwrites."""
        d = None if self.d is None else self.d[name].to(like.device)
        if (draw := self.draw) is None:
            return d
        seed, room = (*draw.seed, self.loss._index[name]), self._buffer(like, torch.float32, "cpu")
        u = draw_one(like, draw.sigma, draw.kind, seed=seed, out=room).mul_(draw.sign)
        return u if d is None else u.add_(d)

    def shifted(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """``w + d + u``, in a buffer that the next call overwrites."""
        if (shift := self.shift(name, weight)) is None:
            return weight
        return torch.add(weight, shift, out=self._buffer(weight, weight.dtype, weight.device))

    def _buffer(self, like: torch.Tensor, dtype, device) -> torch.Tensor:
        buffers, key = self.loss._buffers, (dtype, torch.device(device))
        if key not in buffers or buffers[key].numel() < like.numel():
            buffers[key] = torch.empty(like.numel(), dtype=dtype, device=device)
        return buffers[key][: like.numel()].view(like.shape)

    def collect(self, name: str, gradient: torch.Tensor) -> None:
        """Hand a block on when all its gradients are there."""
        key = self.loss._block_of[name]
        home = self.loss.state_device or self.loss.weights[name].device
        gradient = gradient.to(home, torch.promote_types(gradient.dtype, torch.float32))
        if self.loss.scale != 1:
            gradient = gradient / self.loss.scale
        if self.consume != self.loss._add and name in self.loss._sums:
            gradient = self.loss._sums.pop(name).add_(gradient)
        block = self.pending.setdefault(key, {})
        block[name] = block[name].add_(gradient) if name in block else gradient
        self.seen.add(name)
        if len(block) == self.loss._sizes[key]:
            self.consume(self.pending.pop(key))


class _ShiftedLinear(torch.autograd.Function):
    """``x (w + d + u)^T + b``; the gradients of w and b go to the point, not to the graph."""

    @staticmethod
    def forward(ctx, x, anchor, weight, bias, names, node, point):
        if node is None:  # else its factors are kept, and x need not be
            ctx.save_for_backward(x)
        ctx.names, ctx.node, ctx.point = names, node, point
        if names[1] is not None:
            bias = point.shifted(names[1], bias.detach()).clone()
        if _is_half(weight) and (shift := point.shift(names[0], weight)) is not None:  # w + d would lose most of d
            return functional.linear(x, weight, bias) + functional.linear(x, shift.to(weight.dtype))
        return functional.linear(x, point.shifted(names[0], weight), bias)

    @staticmethod
    def backward(ctx, gradient):
        (name, bias_name), node, point = ctx.names, ctx.node, ctx.point
        weight = point.loss.weights[name].to(gradient.device)  # again, if it was loaded for the forward pass alone
        x = ctx.saved_tensors[0] if node is None else product(node)
        below = None
        if ctx.needs_input_grad[0]:
            if _is_half(weight) and (shift := point.shift(name, weight)) is not None:
                below = gradient @ weight + gradient @ shift.to(weight.dtype)
            else:
                below = gradient @ point.shifted(name, weight)
        rows = gradient.flatten(0, -2)
        point.collect(name, rows.t() @ x.flatten(0, -2))
        if bias_name is not None:
            point.collect(bias_name, rows.sum(0))
        return below, *[None] * 6


def _is_half(weight: torch.Tensor) -> bool:
    return weight.dtype in (torch.bfloat16, torch.float16)
