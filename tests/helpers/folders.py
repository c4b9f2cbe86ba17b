"""Model folders with a foreign config, or with code that must never run."""

import json
from pathlib import Path

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
