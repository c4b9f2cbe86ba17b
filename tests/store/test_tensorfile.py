"""A file of tensors that was changed is refused, wherever its bits lie."""

import pytest
import torch

from mpstudy.errors import StudyError
from mpstudy.store import tensorfile

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "none": torch.empty(0)}
META = {"pruner": "taylor", "seconds": 1.5}


@pytest.fixture
def file(tmp_path):
    tensorfile.save(tmp_path / "file", "scores", TENSORS, META)
    return tmp_path / "file"


def test_what_is_saved_comes_back(file):
    tensors, meta = tensorfile.load(file, "scores")
    assert meta == META and tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype


def test_no_bit_can_be_flipped_unseen(file):
    whole = file.read_bytes()
    begin = whole.index(b"taylor")
    for place in [*range(begin, begin + 6), *range(len(whole) - 30, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(StudyError, match="was changed after it was written|is not a file of scores"):
            tensorfile.load(file, "scores")
