"""Pickles and remote code in folders and files that the commands read. Each would make a folder if it ran."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from . import children, races
from .commands import COMMANDS, Bench
from .row import Row

POSSIBLE = ("unclear", "executed")
PICKLES = (
    "pytorch_model.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
)
ON_MODELS = ("score", "evaluate", "prune", "sparsify", "export", "recover")
MODULE = """
import os
os.makedirs({marker!r}, exist_ok=True)
from transformers import LlamaConfig as CanaryConfig, LlamaForCausalLM as CanaryModel
from transformers import PreTrainedTokenizerFast as CanaryTokenizer
def generate(*arguments, **options):
    return arguments
"""


class _Canary:
    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self):
        return os.makedirs, (self.marker, 0o777, True)


def campaign(bench: Bench) -> Row:
    """Plant, and give each command that would read it."""
    row, marker = Row("planted pickle or remote code", POSSIBLE), bench.folder / "canary"
    print(row.kind, flush=True)
    if not proof(marker):
        raise RuntimeError("the canaries do nothing even when they run")
    for what, work in _plants(bench, marker):
        row.tried()
        ended = children.run(work, bench.logs)
        if not ended.is_good and not ended.is_refusal:
            row.harm("unclear", f"{what}: {ended.last_words}")
        if marker.exists():
            row.harm("executed", what)
            marker.rmdir()
    return row


def proof(marker: Path) -> bool:
    """Whether the canaries would sing: unpickled, and as a module."""
    pickle.loads(pickle.dumps(_Canary(marker)))
    by_pickle = marker.exists()
    shutil.rmtree(marker, ignore_errors=True)
    exec(compile(MODULE.format(marker=str(marker)), "canary", "exec"), {})
    by_module = marker.exists()
    shutil.rmtree(marker, ignore_errors=True)
    return by_pickle and by_module


def _plants(bench: Bench, marker: Path) -> Iterator[tuple[str, Callable]]:
    for kind in ("model", "pruned"):
        for plant in (pickles_alone, pickles_beside, adapter, remote_code, foreign_code):
            for name in ON_MODELS:
                inputs = _inputs(bench, kind)
                plant(inputs / kind, marker)
                with bench.place(COMMANDS[name]) as place:
                    work = _on(bench, name, kind, inputs, place / "out")
                    yield f"{name}, {plant.__name__} in a {kind} folder", work
    for name in ("score", "sparsify"):
        inputs = _inputs(bench, "model")
        np.save(inputs / "tokens.npy", np.array([[_Canary(marker)]], dtype=object), allow_pickle=True)
        yield f"{name}, tokens of pickled objects", _on(bench, name, "model", inputs, inputs / "out")
    inputs = _inputs(bench, "model")
    _dump(inputs / "scores.safetensors", marker)
    yield "prune, pickled scores", _on(bench, "prune", "model", inputs, inputs / "out")
    inputs = _inputs(bench, "pruned")
    _dump(inputs / "out.state", marker)
    yield "recover, a pickled state", _on(bench, "recover", "pruned", inputs, inputs / "out")
    inputs = _inputs(bench, "model")
    (inputs / "out.state").mkdir()
    _dump(inputs / "out.state" / "layer-0.safetensors", marker)
    yield "sparsify, a pickled layer", _on(bench, "sparsify", "model", inputs, inputs / "out")
    yield from _in_the_cache(bench, marker)


def _in_the_cache(bench: Bench, marker: Path) -> Iterator[tuple[str, Callable]]:
    computed = bench.folder / "pickled"
    races.values(bench, computed)
    for entry in sorted(path for path in computed.rglob("*") if path.is_file()):
        whole = entry.read_bytes()
        _dump(entry, marker)
        yield f"study, a pickled entry of {entry.parent.name}", partial(races.study, bench.inputs, computed)
        entry.write_bytes(whole)


def pickles_alone(folder: Path, marker: Path) -> None:
    """Pickles in the place of the weights."""
    (folder / "model.safetensors").unlink()
    pickles_beside(folder, marker)


def pickles_beside(folder: Path, marker: Path) -> None:
    for name in PICKLES:
        _dump(folder / name, marker)


def adapter(folder: Path, marker: Path) -> None:
    """An adapter that transformers would load with the model, its weights a pickle."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "."}))
    _dump(folder / "adapter_model.bin", marker)


def remote_code(folder: Path, marker: Path) -> None:
    """Modules beside the checkpoint, which its config and its tokenizer name."""
    (folder / "canary.py").write_text(MODULE.format(marker=str(marker)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(MODULE.format(marker=str(marker)))
    _edit(folder / "config.json", auto_map=_names("Config", "ModelForCausalLM", "Tokenizer"))
    _edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "canary.CanaryTokenizer"]})


def foreign_code(folder: Path, marker: Path) -> None:
    """The same of a model and a tokenizer that transformers itself does not know."""
    remote_code(folder, marker)
    _edit(folder / "config.json", model_type="canary", architectures=["CanaryModel"])
    _edit(folder / "tokenizer_config.json", tokenizer_class="CanaryTokenizer")


def _names(*kinds: str) -> dict[str, str]:
    return {f"Auto{kind}": f"canary.Canary{kind.removesuffix('ForCausalLM')}" for kind in kinds}


def _edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _dump(file: Path, marker: Path) -> None:
    file.write_bytes(pickle.dumps(_Canary(marker)))


def _inputs(bench: Bench, kind: str) -> Path:
    """A copy of the inputs that may be spoilt."""
    inputs = bench.folder / "planted"
    shutil.rmtree(inputs, ignore_errors=True)
    inputs.mkdir()
    shutil.copytree(bench.inputs / kind, inputs / kind)
    for name in ("tokens.npy", "book.txt", "scores.safetensors"):
        shutil.copy(bench.inputs / name, inputs / name)
    return inputs


def _on(bench: Bench, name: str, kind: str, inputs: Path, out: Path) -> Callable:
    """The work of a command on the folder ``kind`` of ``inputs``, whichever folder it otherwise reads."""
    words = COMMANDS[name].words(inputs, out)
    words = [inputs / kind if word in (inputs / "model", inputs / "pruned") else word for word in words]
    return children.command([name, *map(str, words)])
