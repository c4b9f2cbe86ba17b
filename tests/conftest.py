"""Settings for the whole test run, made before any library reads them. A value you export yourself wins."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests use local files: no load may wait for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # kernels are forked: no warning, no deadlock
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tensors are small: more threads only get in the way
os.environ.setdefault("MPLBACKEND", "agg")  # figures go to files, never to a window


def pytest_collection_modifyitems(items):
    """The run of all notebooks first: it takes longest, and no process of tests then waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")
