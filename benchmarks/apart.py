"""Measurements in a process of their own, so that none inherits the memory or the warm caches of another."""

import json
import subprocess
import sys


def in_own_process(module: str, name: str) -> dict:
    """The last line that ``python -m module name`` prints, a JSON object; RuntimeError with its words if it fails."""
    done = subprocess.run([sys.executable, "-m", module, name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
