"""Peaks of memory, measured on arrays of known size."""

import subprocess
import sys

import numpy as np
import pytest

from mpstudy import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read from /proc")


def hold(megabytes: int) -> int:
    return int(np.ones(megabytes * 125_000).sum()) * 8


def test_a_peak_is_that_of_the_work_alone():
    for megabytes in (300, 50):
        held, peak = memory.peak_of(lambda: hold(megabytes), "cpu")  # noqa: B023
        assert held == megabytes * 1e6 and 0.99 * held < peak < held + 30e6


def test_a_child_begins_with_a_peak_of_its_own():
    kept = np.ones(75_000_000)  # 600 MB
    code = "from mpstudy import memory; print(memory.most_held())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6 < kept.nbytes


def test_the_most_of_a_process_outlives_the_measuring_of_a_part():
    hold(600)
    most = memory.most_held()
    memory.peak_of(lambda: hold(1), "cpu")
    assert memory.most_held() == most > 600e6
