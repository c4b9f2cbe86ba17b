"""Sums over the inputs of a linear layer: enough for every repair and its error, however many tokens there were."""

from dataclasses import dataclass

import torch


@dataclass
class InputSums:
    """Of inputs x (tokens, columns): ``gram``, the sum of ``x^T x``, float64 (columns, columns), and ``total``, the sum
    of x, float64 (columns,). A batch is multiplied in float32, or in float64 if it is that; batches are added up in
    float64, since they are many and the matrix is inverted.
    """

    gram: torch.Tensor
    total: torch.Tensor
    tokens: int = 0

    @classmethod
    def of(cls, linear: torch.nn.Linear) -> "InputSums":
        """No tokens yet, of the inputs of ``linear``."""
        columns, device = linear.in_features, linear.weight.device
        gram = torch.zeros(columns, columns, dtype=torch.float64, device=device)
        return cls(gram, gram.new_zeros(columns))

    def add(self, x: torch.Tensor) -> None:
        """Add inputs (tokens, columns)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        self.gram += x.t() @ x
        self.total += x.sum(0, dtype=torch.float64)
        self.tokens += len(x)

    @property
    def mean(self) -> torch.Tensor:
        """The mean input, float64 (columns,)."""
        return self.total / self.tokens

    def error(self, dense: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        """``||x weight^T + bias - x dense^T||^2`` over ``||x dense^T||^2``, both weights (rows, columns); 0 for a layer
        that puts out nothing, before and after.
        """
        difference = weight - dense
        lost = ((difference @ self.gram) * difference).sum()
        if bias is not None:
            lost += 2 * bias @ (difference @ self.total) + self.tokens * bias.square().sum()
        whole = ((dense @ self.gram) * dense).sum()
        return float(lost.clamp_min(0) / whole) if lost else 0.0
