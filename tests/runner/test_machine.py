"""What the runner knows of its machine, and the environment it gives to its kernels."""

import os
import subprocess
import sys

import pytest

from mpstudy.runner import machine


def test_the_description_has_no_name_of_the_machine():
    found = machine.describe()
    assert set(found) == {"python", "platform", "cpu", "cores", "memory_gb"}
    assert os.uname().nodename not in map(str, found.values())
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    assert found["memory_gb"] == pytest.approx(pages, rel=0.01, abs=0.06)
    assert 0 < machine.available_memory_gb() < found["memory_gb"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_the_process_may_use():
    assert 1 <= machine.cores() <= os.cpu_count()
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); from mpstudy.runner import machine; print(machine.cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def test_kernels_get_threads_and_instructions(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    found = machine.kernel_environment(3)
    assert {found[name] for name in machine.THREAD_VARIABLES} == {"3"}
    assert found["SOMETHING_ELSE"] == "kept" and found["MKL_CBWR"] == "AVX2,STRICT"
    assert "MKL_CBWR" not in os.environ


def test_the_user_chooses_the_instructions(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert machine.kernel_environment(1)["MKL_CBWR"] == "COMPATIBLE"


@pytest.mark.slow
def test_the_speed_probe_measures_something():
    assert 0.001 < machine.probe_seconds(1) < 60
