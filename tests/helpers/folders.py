"""Model folders with a foreign config, or with code that must never run, and one in the layout of the hub's cache."""

import json
import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPY = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path(__file__).with_name("executed").touch()


class Config(LlamaConfig):
    model_type = {kind!r}


class Model(LlamaForCausalLM):
    config_class = Config
"""


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def booby_trap(path: Path) -> bytes:
    """A pickle that creates ``path`` when it is loaded."""
    import pickle

    class Trap:
        def __reduce__(self):
            return Path.touch, (path,)

    return pickle.dumps(Trap())


def hub_cache(home: Path, folder: str, files=None) -> Path:
    """A Hugging Face cache with ``owner/tiny``, holding all or some ``files`` of ``folder``; returns its snapshot."""
    repository = home / "hub" / "models--owner--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for path in Path(folder).iterdir():
        if files is None or path.name in files:
            shutil.copy(path, snapshot)
    return snapshot
