"""Scores on disk, and the first-order score by hand."""

import pytest
import torch
from helpers.models import tiny_llama
from safetensors.torch import save_file

from mpstudy.errors import StudyError
from mpstudy.structure.scores import Scores, first_order_scores
from mpstudy.structure.units import prunable_units


@pytest.fixture
def saved(tmp_path):
    values = {"layers.0.attention": torch.tensor([1.5, 0.1]), "layers.0.mlp": torch.linspace(0, 1, 1000)}
    scores = Scores(values, {"pruner": "moreau", "rho": 0.05, "converged": True, "step_size": None})
    scores.save(tmp_path / "scores.safetensors")
    return scores, tmp_path / "scores.safetensors"


def test_round_trip_keeps_bits_and_settings(saved):
    scores, path = saved
    again = Scores.load(path)
    assert again.meta == scores.meta and again.values.keys() == scores.values.keys()
    assert all(torch.equal(again.values[key], value) for key, value in scores.values.items())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(saved, share):
    data = saved[1].read_bytes()
    saved[1].write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StudyError, match="scores.safetensors is not a file of scores written by mpstudy"):
        Scores.load(saved[1])


def test_file_of_another_kind(tmp_path):
    save_file({"weight": torch.ones(3)}, str(tmp_path / "model.safetensors"))
    (tmp_path / "text.safetensors").write_text("not a safetensors file at all")
    for name in ("model.safetensors", "text.safetensors", "missing.safetensors"):
        with pytest.raises(StudyError, match=f"{name} is not a file of scores written by mpstudy"):
            Scores.load(tmp_path / name)


def test_first_order_score_is_the_sum_of_absolute_products():
    model = tiny_llama(kv_heads=2)
    units = prunable_units(model, "mlp 0")
    weights = units.parameters(model)
    gradients = {name: torch.linspace(-1, 2, weight.numel()).view(weight.shape) for name, weight in weights.items()}
    gate, up, down = ((weights[name] * gradients[name]).detach().abs() for name in units.names)
    scores = first_order_scores(units, weights, gradients, {"pruner": "by hand"})
    expected = gate.sum(dim=1) + up.sum(dim=1) + down.sum(dim=0)
    torch.testing.assert_close(scores.values["layers.0.mlp"], expected)
    assert scores.meta == {"pruner": "by hand"} and not scores.values["layers.0.mlp"].requires_grad
