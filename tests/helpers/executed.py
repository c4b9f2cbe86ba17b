"""Which functions of the library a run's kernel really calls: the empirical side of what it is said to reach."""

import json
from pathlib import Path

HOOK = '''
import json, os, sys, threading

context = os.environ.get("MPSTUDY_RUN")
if context:
    run = json.load(open(context))["run"]
    folder, package = {folder!r}, {package!r}
    seen, out = set(), open(os.path.join(folder, run + ".jsonl"), "a")

    def importing(frame):
        """Whether a file of the package is being loaded: what runs then only defines."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(package):
                return True
            frame = frame.f_back
        return False

    def note(frame, event, argument):
        code = frame.f_code
        if event != "call" or code in seen or not code.co_filename.startswith(package):
            return
        if code.co_flags & 1 and not importing(frame):  # a class body is no call
            seen.add(code)
            out.write(json.dumps([code.co_filename, code.co_qualname]) + "\\n")
            out.flush()

    threading.setprofile(note)
    sys.setprofile(note)
'''


def hook(folder: Path, package: Path) -> Path:
    """A folder for PYTHONPATH that makes every kernel of the runner write its calls into ``folder``."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(folder=str(folder), package=str(package)))
    return folder


def executed(folder: Path, run: str, root: Path) -> set[tuple[str, str]]:
    """Module and top-level name (``function``, ``Class.method``) of everything a run called."""
    found = set()
    for line in (folder / f"{run}.jsonl").read_text().splitlines():
        file, name = json.loads(line)
        parts = Path(file).relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.add((module, name.partition(".<locals>")[0]))
    return found
