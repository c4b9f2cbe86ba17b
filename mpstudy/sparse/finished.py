"""The finished layers of a pruning in a folder, from which a stopped one goes on."""

from pathlib import Path

import torch
from torch import nn

from ..errors import StudyError
from ..store import tensorfile
from ..store.digests import tokens_digest, weights_digest
from ..store.files import replacing
from ..structure import families
from .finite import check_finite


def linears_of(model: nn.Module, layer: int) -> dict[str, nn.Linear]:
    """The linear layers inside a layer by their full names."""
    place = f"{families.family(model.config).layers}.{layer}"
    modules = families.layers(model)[layer].named_modules()
    return {f"{place}.{name}": module for name, module in modules if isinstance(module, nn.Linear)}


class Finished:
    """The layers of ``model`` that are finished, kept in ``folder``; without one nothing is kept. ``settings``, the
    weights and the tokens say of which work they are.
    """

    def __init__(self, folder: str | Path | None, model: nn.Module, batches: list[torch.Tensor], settings: dict):
        self.folder = Path(folder) if folder else None
        if self.folder:
            self.key = settings | {"model": weights_digest(model), "tokens": tokens_digest(batches)}

    def save(self, layer: int, linears: dict[str, nn.Linear], rows: list[dict]) -> None:
        """Keep a layer and its ``rows``."""
        if self.folder:
            weights = {name: linear.weight for name, linear in linears.items()}
            with replacing(self._path(layer)) as partial:
                tensorfile.save(partial, "sparse", weights, {"key": self.key, "rows": rows})

    def load(self, layer: int, model: nn.Module, rows: list[dict]) -> bool:
        """Whether the layer is finished; then its weights go into the model and its rows to ``rows``. Raises
        :class:`StudyError` for one of another work, or with a weight that is not finite.
        """
        if not self.folder or not self._path(layer).is_file():
            return False
        weights, meta = tensorfile.load(self._path(layer), "sparse")
        if different := [name for name in self.key if meta["key"].get(name) != self.key[name]]:
            raise StudyError(f"{self.folder} is of another pruning (other {different[0]}); choose another folder")
        for name, linear in linears_of(model, layer).items():
            check_finite("kept weights", weights[name], name, self.key["method"])
            linear.weight.data.copy_(weights[name])
        rows += meta["rows"]
        return True

    def _path(self, layer: int) -> Path:
        assert self.folder is not None
        return self.folder / f"layer-{layer}.safetensors"
