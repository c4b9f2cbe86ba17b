"""A state is there again, whole, for the same computation and for no other."""

import pytest
import torch
from helpers.models import tiny_llama, tiny_tokens

from mpstudy.errors import StudyError
from mpstudy.store.state import State, identity


def test_what_was_saved_last_comes_back_to_the_bit(tmp_path):
    state = State(tmp_path / "new" / "run.state", {"lr": 0.1, "layers": [1, 2]})
    assert state.load() is None
    state.save({"s": torch.zeros(2)}, {"done": 0})
    value = torch.rand(5, dtype=torch.float64)
    state.save({"s": value}, {"done": 3, "loss": 0.1 + 0.2})
    tensors, facts = State(state.path, {"lr": 0.1, "layers": [1, 2]}).load()
    assert torch.equal(tensors["s"], value) and tensors["s"].dtype == torch.float64
    assert facts == {"done": 3, "loss": 0.1 + 0.2}
    assert [path.name for path in state.path.parent.iterdir()] == ["run.state"]


@pytest.mark.parametrize("key, differs", [({"lr": 0.2}, "lr"), ({"lr": 0.1, "seed": 1}, "seed"), ({}, "lr")])
def test_that_of_another_computation_is_refused(tmp_path, key, differs):
    State(tmp_path / "state", {"lr": 0.1}).save({}, {})
    with pytest.raises(StudyError, match=rf"state is of another run \(other {differs}\); delete it or choose another"):
        State(tmp_path / "state", key).load()


def test_a_truncated_file_is_refused(tmp_path):
    state = State(tmp_path / "state", {})
    state.save({"s": torch.zeros(100)}, {})
    state.path.write_bytes(state.path.read_bytes()[:200])
    with pytest.raises(StudyError, match="is not a file of state written by mpstudy"):
        state.load()


def test_without_a_path_nothing_is_kept():
    state = State(None, {})
    state.save({"s": torch.zeros(1)}, {})
    assert state.load() is None


def test_the_identity_holds_model_tensors_and_settings():
    def of(seed=0, tokens=0, **settings):
        return identity(tiny_llama(seed=seed), settings, tokens=[tiny_tokens(seed=tokens)])

    assert of(lr=1) == of(lr=1) and list(of(lr=1)) == ["model", "tokens", "lr"]
    assert of(seed=1)["model"] != of()["model"] and of(seed=1)["tokens"] == of()["tokens"]
    assert of(tokens=1)["tokens"] != of()["tokens"]
