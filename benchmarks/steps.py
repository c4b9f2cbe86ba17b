"""What a Moreau step costs beside the forward and backward pass it contains: CPU time and extra peak memory.

Each method runs in a process of its own and takes turns with a plain forward+backward, so that both meet the same
machine. A step lasts from the beginning of one forward pass to that of the next; times are medians over steps. From
the measured coefficients follows an estimate for larger models.
"""

import json
import statistics
import sys
import time
from functools import partial
from itertools import pairwise

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpstudy import pruners
from mpstudy.memory import forget_peak_memory, held_memory
from mpstudy.structure.units import prunable_units

from . import estimates
from .apart import in_own_process

MODEL = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12,
    "intermediate_size": 2048, "vocab_size": 8192, "tie_word_embeddings": False,
}  # fmt: skip
BATCH = (4, 128)
STEPS = 8
ROUNDS = 3
METHODS = {  # name -> pruner and settings; None is the baseline alone
    "forward+backward": None,
    "moreau (spectral)": ("moreau", {"max_steps": STEPS, "tol": 1e-9}),
    "moreau (plain)": ("moreau", {"max_steps": STEPS, "tol": 1e-9, "solver": "plain"}),
    "moreau-gs (spectral)": ("moreau-gs", {"max_steps": STEPS, "tol": 1e-9}),
    "moreau (noise)": ("moreau", {"max_steps": 3, "tol": 1e-9, "sigma": 0.05}),
    "moreau-release": ("moreau-release", {"steps": STEPS}),
}


def main() -> dict:
    """Measure every method and print the table and the estimate; their numbers."""
    shape = shape_of(MODEL)
    print(
        f"random LLaMA of {shape.parameters / 1e6:.1f} M parameters, fp32, batch {BATCH[0]} x {BATCH[1]}, "
        f"{torch.get_num_threads()} threads; a step beside a plain forward+backward in the same process"
    )
    print(f"{'method':22}{'CPU s':>9}{'time ratio':>12}{'extra peak memory / weights':>30}")
    rows = {}
    for name in METHODS:
        rows[name] = row = in_own_process("benchmarks.steps", name)
        print(f"{name:22}{row['seconds']:9.2f}{row['ratio']:12.2f}{row['memory']:30.2f}", flush=True)
    return {"methods": rows, "estimate": estimate(shape, rows)}


def shape_of(model: dict) -> estimates.Shape:
    """The sizes of a model from the settings of its config."""
    names = {
        "hidden": "hidden_size",
        "mlp": "intermediate_size",
        "layers": "num_hidden_layers",
        "vocabulary": "vocab_size",
    }
    return estimates.Shape.of(**{name: model[key] for name, key in names.items()})


def measure(name: str) -> dict:
    """CPU seconds a step, their ratio to a plain forward+backward, extra peak memory over the weights' bytes."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL)).eval()
    units = prunable_units(model, f"0-{MODEL['num_hidden_layers'] - 1}")
    tokens = torch.randint(MODEL["vocab_size"], BATCH)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    plain = own = partial(_forward_backward, model, tokens)
    if METHODS[name]:
        pruner, settings = METHODS[name]
        own = partial(pruners.score, pruner, model, [tokens], units, **settings)
    before = forget_peak_memory()
    own()
    memory = (held_memory("VmHWM") - before) / weights
    rounds = [(_step_seconds(model, plain), _step_seconds(model, own)) for _ in range(ROUNDS)]
    plain_seconds, own_seconds = zip(*rounds, strict=True)
    ratio = estimates.median_ratio(own_seconds, plain_seconds)
    return {"seconds": statistics.median(own_seconds), "ratio": ratio, "memory": memory}


def _forward_backward(model, tokens) -> None:
    for _ in range(STEPS):
        model.zero_grad()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    model.zero_grad()


def _step_seconds(model, work) -> float:
    """Median CPU seconds from the beginning of one forward pass to that of the next."""
    begins = []
    hook = model.register_forward_pre_hook(lambda *_: begins.append(time.process_time()))
    work()
    hook.remove()
    return statistics.median(end - begin for begin, end in pairwise(begins))


def estimate(shape: estimates.Shape, rows: dict) -> dict:
    """Print memory and time of LLaMA-size models by the coefficients just measured on ``shape``; their numbers."""
    tokens = BATCH[0] * BATCH[1]
    rate = estimates.flops_per_second(shape, tokens, rows["forward+backward"]["seconds"] / torch.get_num_threads())
    per_value = estimates.activation_bytes(shape, tokens, rows["moreau (plain)"]["memory"])
    print(
        f"\nestimate for one gradient of 10 x 64 tokens, bf16 weights, fp32 state; {per_value:.0f} bytes of "
        f"activations per token, layer and (hidden + MLP) value as measured here in fp32 (half of it in bf16); "
        f"this machine's {rate / 1e9:.0f} GFLOP/s"
    )
    print(f"{'model':14}{'weights':>10}{'activations':>13}{'state plain':>13}{'spectral':>10}{'time here':>12}")
    found = {name: estimates.scoring(large, per_value, rate) for name, large in estimates.LARGE.items()}
    for name, row in found.items():
        print(
            f"{name:14}{row['weights_gb']:7.0f} GB{row['activations_gb']:10.1f} GB{row['plain_state_gb']:10.0f} GB"
            f"{row['spectral_state_gb']:7.0f} GB{row['minutes']:8.1f} min"
        )
    print("the state can lie on the host (state_device=cpu): the card then holds weights and activations")
    return found


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
