"""The arithmetic of the benchmarks, on numbers worked out by hand, and the process that a measurement gets."""

import os

import pytest

from benchmarks import estimates
from benchmarks.apart import in_own_process
from benchmarks.estimates import Shape

ROUND = Shape(prunable=1e9, parameters=2e9, hidden=100, mlp=300, layers=10)


def test_the_parameters_of_a_shape():
    shape = Shape.of(hidden=2, mlp=3, layers=1, vocabulary=5)
    assert shape == Shape(
        prunable=34, parameters=60, hidden=2, mlp=3, layers=1
    )  # 16 + 18; and 4 + 2 norms, 20 embeddings
    assert shape.width == 5


@pytest.mark.parametrize("name, vocabulary", [("LLaMA-7B", 32_000), ("LLaMA-13B", 32_000)])
def test_the_listed_models_have_the_parameters_of_their_sizes(name, vocabulary):
    listed = estimates.LARGE[name]
    made = Shape.of(hidden=listed.hidden, mlp=listed.mlp, layers=listed.layers, vocabulary=vocabulary)
    assert made.prunable == pytest.approx(listed.prunable, rel=1e-3)
    assert made.parameters == pytest.approx(listed.parameters, rel=1e-3)


def test_a_ratio_is_the_median_over_rounds():
    assert estimates.median_ratio([2, 6, 9], [1, 2, 9]) == 2  # of 2, 3 and 1; the ratio of medians is 3
    with pytest.raises(ValueError):
        estimates.median_ratio([1, 2], [1])


def test_speed_and_activations_from_a_measurement():
    shape = Shape.of(hidden=2, mlp=3, layers=1, vocabulary=5)
    assert estimates.flops_per_second(shape, tokens=10, seconds=3.0) == 1200  # 6 * 60 * 10 / 3
    assert estimates.activation_bytes(shape, tokens=10, memory=1.5) == pytest.approx(4.48)  # 4 * (90 - 34) / (10 * 5)


def test_scoring():
    found = estimates.scoring(ROUND, per_value=40.0, rate=1e12)
    assert found == pytest.approx({
        "weights_gb": 4.0,
        "activations_gb": 0.0512,  # 20 bytes * 640 tokens * 4000 values
        "plain_state_gb": 4.0,
        "spectral_state_gb": 8.0,
        "minutes": 0.128,  # 7.68e12 operations
    })  # fmt: skip


def test_recovery():
    found = estimates.recovery(ROUND, rank=8, cards=(1, 4))
    assert found["weights_gb"] == 4.0
    assert found["lora_gb"] == pytest.approx(0.00256)  # 16 bytes * 8 * (11 * 100 + 3 * 300) * 10
    # 1024 tokens * (2 bytes * 100 * 10 at the borders + 80 bytes * 400 within a layer) = 0.034816 GB on each card
    assert found["per_card_gb"] == pytest.approx({"1": 4.00256 + 0.034816, "4": 1.00064 + 0.4 + 0.034816})


def test_a_measurement_has_a_process_of_its_own(monkeypatch, tmp_path):
    (tmp_path / "measured.py").write_text(
        "import json, os, sys\n"
        "print('a warning')\n"
        "if sys.argv[1] == 'broken': sys.exit('no such card')\n"
        "print(json.dumps({'name': sys.argv[1], 'pid': os.getppid()}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert in_own_process("measured", "one") == {"name": "one", "pid": os.getpid()}
    with pytest.raises(RuntimeError, match="measuring broken failed:\nno such card"):
        in_own_process("measured", "broken")
