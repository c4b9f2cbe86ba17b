"""Memory that this process holds: giving it back, and measuring the most of it."""

import ctypes
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # a notebook of figures alone does without it
    import torch

T = TypeVar("T")

_EARLIER = {"cpu": 0, "cuda": 0}  # the most bytes held until a peak was last forgotten


def trim() -> None:
    """Give freed memory back to the system, which glibc alone does only in part; nothing under another C library."""
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def peak_of(work: Callable[[], T], device: "str | torch.device") -> tuple[T, int | None]:
    """What ``work()`` returns, and the bytes on ``device`` that were held at most meanwhile beyond those before; None
    for a CPU outside Linux.
    """
    import torch

    if torch.device(device).type == "cuda":
        _EARLIER["cuda"] = most_held("cuda")
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return work(), torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux":
        return work(), None
    trim()  # freed memory that is used again would hide a rise
    before = forget_peak_memory()
    return work(), max(held_memory("VmHWM") - before, 0)


def most_held(kind: str = "cpu") -> int:
    """Bytes that this process has held at most since it began, in main memory or (``cuda``) on its GPU."""
    if kind == "cuda":
        import torch

        return max(_EARLIER["cuda"], torch.cuda.max_memory_allocated())
    if sys.platform == "linux":  # ru_maxrss begins at the peak of the process that started this one
        return max(_EARLIER["cpu"], held_memory("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory() -> int:
    """Begin a new peak of this process; bytes it holds now. :func:`most_held` remembers the old one. Linux only."""
    _EARLIER["cpu"] = most_held()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return held_memory("VmRSS")


def held_memory(field: str) -> int:
    """Bytes of memory by a field of this process's status: ``VmRSS``, what it holds, or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
