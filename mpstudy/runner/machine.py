"""The machine a run happens on: its description, free space, and a short probe of its speed."""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from ..errors import StudyError
from ..store.paths import ROOT

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

# MKL picks its kernels, and with them the order of its sums, by the processor. With one set of instructions for all,
# forward passes of an Intel and an AMD machine gave the same bits (dense perplexity and masks); without it they were
# 1e-5 of the value apart.
SAME_BITS = {"MKL_CBWR": "AVX2,STRICT"}


def other_bits() -> dict[str, str]:
    """What the user has set instead of :data:`SAME_BITS`; empty where nothing."""
    return {name: os.environ[name] for name, usual in SAME_BITS.items() if os.environ.get(name, usual) != usual}


def describe() -> dict:
    """Operating system, processor, cores and memory (GB); nothing that names the machine or its owner."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def cores() -> int:
    """Processor cores this process may use."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # macOS binds no process to cores
        return len(process.cpu_affinity())
    return psutil.cpu_count() or 1


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def free_disk_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9


def available_memory_gb() -> float:
    """Memory that programs could still take."""
    return psutil.virtual_memory().available / 1e9


def git_revision() -> dict:
    """The commit the code stands at, and whether code, notebooks or data differ from it; None outside git."""
    if not (revision := _git("rev-parse", "--verify", "--quiet", "HEAD")):
        return {"revision": None, "dirty": None}
    return {
        "revision": revision,
        "dirty": bool(_git("status", "--porcelain", "mpstudy", "notebooks", "data")),
    }


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def kernel_environment(threads: int) -> dict[str, str]:
    """Environment for a child process: this one's, with ``threads`` and a way to import the library.

    ``MKL_CBWR`` is set too (:data:`SAME_BITS`), unless the user has set it.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm would like widgets; the runner shows progress
    fixed = {name: str(threads) for name in THREAD_VARIABLES} | {"PYTHONPATH": path} | quiet
    return SAME_BITS | os.environ | fixed


def probe_seconds(threads: int) -> float:
    """Seconds of a fixed piece of transformer-like work (median of several; 2 to 4 s in all).

    It runs in a process of its own, so that the runner itself stays small and light.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mpstudy.runner.machine", str(threads)],
        cwd=ROOT,
        text=True,
        env=kernel_environment(threads),
        capture_output=True,
    )
    if done.returncode:
        raise StudyError(f"the speed probe failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def _probe(threads: int, repeats: int = 5) -> float:
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(shape, generator=generator).to(device).requires_grad_()
        for shape in [(576, 576), (576, 1536), (1536, 576)] * 3
    ]
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        x = torch.ones(640, 576, device=device)
        for weight in weights:
            x = torch.nn.functional.silu(x @ weight / weight.shape[0] ** 0.5)
        x.sum().backward()
        weights[0].grad.sum().item()  # waits for a GPU to be done
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])  # the first one warms up


if __name__ == "__main__":
    print(_probe(int(sys.argv[1])))
