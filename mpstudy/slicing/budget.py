"""How far to cut a model for a number of parameters, which its shortcuts and its separate head count among."""

from bisect import bisect_left
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ..errors import StudyError
from ..evaluation.cost import parameter_count
from ..structure import surgery
from ..structure.sliced import with_shortcuts
from .config import sliced_config
from .slicegpt import STEP


def cut_to(model: Any, parameters: int) -> float:
    """The cut that leaves a sliced ``model`` as many parameters as come nearest to ``parameters``.

    Raises :class:`StudyError` for fewer than the smallest sliced model has, and as :func:`.config.sliced_config`.
    """
    hidden = model.config.hidden_size
    sizes = range(STEP, hidden + 1, STEP)
    above = bisect_left(sizes, parameters, key=lambda size: sliced_parameters(model, size))
    if above == 0 and sliced_parameters(model, STEP) > 1.1 * parameters:
        raise StudyError(f"no cut leaves {parameters:,} parameters: the smallest sliced model has more")
    near = sizes[max(above - 1, 0) : above + 1]
    size = min(near, key=lambda each: abs(sliced_parameters(model, each) - parameters))
    return 1 - size / hidden


def sliced_parameters(model: Any, size: int) -> int:
    """Parameters of ``model`` once it is sliced to a hidden size."""
    with torch.device("meta"):
        twin = with_shortcuts(AutoModelForCausalLM.from_config(sliced_config(model.config, size), dtype=model.dtype))
        surgery.resize(twin, surgery.unit_counts(model))
    return parameter_count(twin)
