"""What a Moreau step costs beside the forward and backward pass it contains: CPU time and extra peak memory.

Each method runs in a process of its own and takes turns with a plain forward+backward, so that both meet the same
machine. A step lasts from the beginning of one forward pass to that of the next; times are medians over steps. From
the measured coefficients follows an estimate for larger models.
"""

import json
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpstudy import pruners
from mpstudy.memory import forget_peak_memory, held_memory
from mpstudy.structure.units import prunable_units

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
LARGE = {  # parameters of the prunable layers, all parameters, hidden, MLP, layers
    "LLaMA-7B": (6.476e9, 6.738e9, 4096, 11008, 32),
    "LLaMA-13B": (12.688e9, 13.016e9, 5120, 13824, 40),
    "LLaMA-2-70B": (68.452e9, 68.977e9, 8192, 28672, 80),
}


def main() -> None:
    """Measure every method and print the table and the estimate."""
    print(
        f"random LLaMA of {_parameters() / 1e6:.1f} M parameters, fp32, batch {BATCH[0]} x {BATCH[1]}, "
        f"{torch.get_num_threads()} threads; a step beside a plain forward+backward in the same process"
    )
    print(f"{'method':22}{'CPU s':>9}{'time ratio':>12}{'extra peak memory / weights':>30}")
    rows = {}
    for name in METHODS:
        rows[name] = row = _in_own_process(name)
        print(f"{name:22}{row['seconds']:9.2f}{row['ratio']:12.2f}{row['memory']:30.2f}", flush=True)
    _estimate(rows)


def _in_own_process(name: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "benchmarks.steps", name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {name} failed:\n{done.stderr}")
    return json.loads(done.stdout)


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
    seconds, ratio = (
        statistics.median(own for _, own in rounds),
        statistics.median(own / plain for plain, own in rounds),
    )
    return {"seconds": seconds, "ratio": ratio, "memory": memory}


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


def _estimate(rows: dict) -> None:
    """Memory and time of LLaMA-size models by the coefficients just measured."""
    tokens, (hidden, mlp, layers) = BATCH[0] * BATCH[1], _shape()
    seconds, total = rows["forward+backward"]["seconds"] / torch.get_num_threads(), _parameters()
    rate = 6 * total * tokens / seconds
    prunable = layers * (4 * hidden**2 + 3 * hidden * mlp)
    held = (rows["moreau (plain)"]["memory"] * total - prunable) * 4  # what is no state: activations and buffers
    per_value = held / (tokens * layers * (hidden + mlp))
    print(
        f"\nestimate for one gradient of 10 x 64 tokens, bf16 weights, fp32 state; {per_value:.0f} bytes of "
        f"activations per token, layer and (hidden + MLP) value as measured here in fp32 (half of it in bf16); "
        f"this machine's {rate / 1e9:.0f} GFLOP/s"
    )
    print(f"{'model':14}{'weights':>10}{'activations':>13}{'state plain':>13}{'spectral':>10}{'time here':>12}")
    for name, (inside, everything, hidden, mlp, layers) in LARGE.items():
        activations = per_value / 2 * 640 * layers * (hidden + mlp)
        print(
            f"{name:14}{2 * everything / 1e9:7.0f} GB{activations / 1e9:10.1f} GB{4 * inside / 1e9:10.0f} GB"
            f"{8 * inside / 1e9:7.0f} GB{6 * everything * 640 / rate / 60:8.1f} min"
        )
    print("the state can lie on the host (state_device=cpu): the card then holds weights and activations")


def _shape() -> tuple[int, int, int]:
    return MODEL["hidden_size"], MODEL["intermediate_size"], MODEL["num_hidden_layers"]


def _parameters() -> int:
    hidden, mlp, layers = _shape()
    return layers * (4 * hidden**2 + 3 * hidden * mlp + 2 * hidden) + hidden + 2 * hidden * MODEL["vocab_size"]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
