"""Which functions of the library a run's kernel really calls: the empirical side of what it is said to reach."""

import json
from pathlib import Path

from mpstudy.store.modules import Module
from mpstudy.store.reach import Library

HOOK = '''
import json, os, sys, threading

context = os.environ.get("MPSTUDY_RUN")
if context:
    run = json.load(open(context))["run"]
    folder, package = {folder!r}, {package!r}
    seen, out = {{}}, open(os.path.join(folder, run + ".jsonl"), "a")

    def importing(frame):
        """Whether a file of the package is being loaded: what runs then only defines, or says which names there are."""
        if frame.f_back is not None and frame.f_back.f_code.co_filename.startswith("<frozen importlib"):
            return True
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(package):
                return True
            frame = frame.f_back
        return False

    def note(frame, event, argument):
        if event != "call" or id(frame.f_code) in seen:
            return
        code = frame.f_code
        ours = code.co_filename.startswith(package) and code.co_flags & 1  # a class body is no call
        if ours and importing(frame):
            return
        seen[id(code)] = code  # kept, so that no other gets its number
        if ours:
            out.write(json.dumps([code.co_filename, code.co_qualname, code.co_firstlineno]) + "\\n")
            out.flush()

    threading.setprofile(note)
    sys.setprofile(note)
'''


def hook(folder: Path, package: Path) -> Path:
    """A folder for PYTHONPATH that makes every kernel of the runner write its calls into ``folder``."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(folder=str(folder), package=str(package)))
    return folder


def executed(folder: Path, run: str, library: Library, root: Path) -> set[tuple[str, str]]:
    """Module and definition of everything that a run called, as ``library`` names it."""
    found = set()
    for line in (folder / f"{run}.jsonl").read_text().splitlines():
        file, name, number = json.loads(line)
        parts = Path(file).relative_to(root).with_suffix("").parts
        module = library.modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)]
        found |= {(module.name, definition) for definition in _definitions(module, name.split(".<locals>")[0], number)}
    return found


def _definitions(module: Module, name: str, line: int) -> list[str]:
    """The definition of a function: a lambda is part of what its line assigns, a method of a class kept whole of it."""
    if not name.startswith("<"):
        return [name if name in module.nodes else name.partition(".")[0]]
    return [
        definition
        for definition, nodes in module.nodes.items()
        if any(getattr(node, "lineno", line + 1) <= line <= node.end_lineno for node in nodes)
    ]
