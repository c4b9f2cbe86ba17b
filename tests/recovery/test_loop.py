"""The steps of LoRA training: the same in one row or many, in one process or two, whole or resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from helpers.tiny import ROWS, byte_tokenizer, encoded, pruned_model, tiny_model

from mpstudy.errors import StudyError
from mpstudy.recovery import examples, loop, lora
from mpstudy.recovery.recipe import Recipe
from mpstudy.store.paths import ROOT

HERE = Path(__file__).parent
TRAINING, VALIDATION = ROWS[:9], ROWS[9:]
QUICK = {"r": 4, "lr": 1e-2, "epochs": 2, "batch_size": 4, "micro_batch_size": 2, "warmup_steps": 1, "cutoff": 400}


def train(model=None, state=None, log=lambda row: None, save_every=2, **changes):
    recipe = Recipe(**QUICK | changes)
    return lora.train_adapter(
        model or tiny_model(), *encoded(byte_tokenizer(), recipe, TRAINING, VALIDATION), recipe=recipe,
        state=state, save_every=save_every, log=log,
    )  # fmt: skip


def loop_of(steps=6, **changes):
    recipe = Recipe(**QUICK | changes)
    return loop.Loop(lora.with_lora(tiny_model(), recipe), recipe, steps, seed=0)


def assert_same(one, other, **tolerance):
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(other.weights[name], value, **tolerance)


@pytest.mark.parametrize("changes", [{"packing": False}, {"checkpointing": True}, {"micro_batch_size": 9}])
def test_how_a_step_is_computed_does_not_matter(changes):
    plain, other = train(dropout=0.0), train(dropout=0.0, **changes)
    for row, same in zip(plain.meta["history"], other.meta["history"], strict=True):
        assert same == pytest.approx(row, rel=1e-4)
    assert_same(plain, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("changes", [{"optimiser": "adamp"}, {"schedule": "cosine"}, {"loss_on": "all"}])
def test_other_recipes_train_too_and_differ(changes):
    history = train(**changes).meta["history"]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"] - 0.1
    assert history[-1]["loss"] != train().meta["history"][-1]["loss"]


def test_every_epoch_has_every_example_once_in_an_order_of_its_own():
    steps = loop_of().order(9)
    assert [len(step) for step in steps] == [4, 4, 1] * 2
    first, second = (sum(steps[part], []) for part in (slice(3), slice(3, 6)))
    assert sorted(first) == sorted(second) == list(range(9)) and first != second


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("linear", [0, 0.5, 1, 0.75, 0.5, 0.25, 0]), ("cosine", [0, 0.5, 1, 0.8536, 0.5, 0.1464, 0])],
)
def test_the_learning_rate_follows_the_schedule(schedule, expected):
    loop = loop_of(schedule=schedule, warmup_steps=2, lr=1.0)
    rates = []
    for _ in expected:
        rates.append(loop.optimiser.param_groups[0]["lr"])
        loop.optimiser.step()
        loop.schedule.step()
    assert rates == pytest.approx(expected, abs=1e-4)


def test_a_step_moves_the_weights_along_the_clipped_gradient():
    """Plain gradient descent in place of AdamW: the weights move by lr times the gradient of norm max_grad_norm."""
    loop = loop_of(max_grad_norm=1e-3, dropout=0.0)
    parameters = [parameter for parameter in loop.model.parameters() if parameter.requires_grad]
    loop.optimiser = loop.accelerator.prepare(torch.optim.SGD(parameters, lr=1.0))
    before = [parameter.detach().clone() for parameter in parameters]
    loop.step(1, examples.encode(byte_tokenizer(), TRAINING[:4], 400))
    moved = sum((new - old).square().sum() for new, old in zip(parameters, before)).sqrt()
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_the_weights_with_the_lowest_validation_loss_are_kept():
    history = loop.History()
    for step, loss in enumerate([1.0, 3.0, 2.0, 2.5]):
        history.add({"step": step, "validation_loss": loss}, lambda step=step: {"w": torch.tensor(step)})
    assert history.best_step == 2 and history.best["w"] == 2
    assert history.step == 3


# --- Going on ----------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopped_at(step, state, model=None, **changes):
    def log(row):
        if row["step"] == step:
            raise Stop

    with pytest.raises(Stop):
        train(model, state=state, log=log, **changes)


@pytest.mark.parametrize("optimiser", ["adamw", "adamp"])
@pytest.mark.parametrize("step", [1, 3, 5, 6])
def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path, step, optimiser):
    state, model, seen = tmp_path / "state.safetensors", pruned_model(), []
    stopped_at(step, state, model, optimiser=optimiser)
    assert state.exists() == (step > 2)
    whole = train(model, optimiser=optimiser)
    resumed = train(model, state=state, optimiser=optimiser, log=seen.append)
    assert resumed.meta == whole.meta and seen == whole.meta["history"]
    assert_same(whole, resumed, rtol=0, atol=0)
    assert state.exists()  # until the caller has kept the adapter
    assert_same(whole, train(model, state=state, optimiser=optimiser), rtol=0, atol=0)


@pytest.mark.parametrize(("changes", "name"), [({"lr": 1e-3}, "recipe"), ({"model": pruned_model(seed=2)}, "base")])
def test_the_state_of_another_training_is_refused(tmp_path, changes, name):
    stopped_at(3, tmp_path / "state")
    with pytest.raises(StudyError, match=f"state is of a training with another {name}; delete it to begin anew"):
        train(state=tmp_path / "state", **changes)
    assert (tmp_path / "state").exists()


def test_a_damaged_state_is_an_error(tmp_path):
    (tmp_path / "state").write_bytes(b"half")
    with pytest.raises(StudyError, match="state is not a file of training written by mpstudy"):
        train(state=tmp_path / "state")


def test_a_sharded_training_says_once_that_it_is_not_kept(tmp_path, monkeypatch, capsys):
    whole = train()
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "is_sharded", property(lambda self: True))
        stopped_at(5, tmp_path / "state")
        said = "a sharded recovery (FSDP) is not kept while it runs: if it stops, it begins anew\n"
        assert capsys.readouterr().err == said and not (tmp_path / "state").exists()
        train()
        assert capsys.readouterr().err == ""  # nobody asked to keep it
        assert_same(whole, train(state=tmp_path / "state"), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "sharded"), [("FSDP", True), ("MULTI_GPU", False), ("NO", False)])
def test_fsdp_alone_is_sharded(kind, sharded, monkeypatch):
    training = loop_of()
    monkeypatch.setattr(training, "accelerator", SimpleNamespace(distributed_type=DistributedType[kind]))
    assert training.is_sharded == sharded


SCRIPT = """
import json, sys, time
from pathlib import Path
sys.path[:0] = {tests!r}
import test_loop
slow = len(sys.argv) > 2
def log(row):
    print(row["step"], flush=True)
    if slow:
        time.sleep(0.3)
adapter = test_loop.train(state=sys.argv[1] + "/state", save_every=1, log=log, dropout={dropout})
import accelerate
if accelerate.PartialState().is_main_process:
    adapter.save(sys.argv[1] + "/adapter.safetensors")
"""


def script(folder: Path, dropout: float) -> Path:
    path = folder / "train.py"
    path.write_text(SCRIPT.format(tests=[str(HERE), str(HERE.parent)], dropout=dropout), encoding="utf-8")
    return path


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    (tmp_path / "whole").mkdir()
    path = script(tmp_path, dropout=0.1)
    command = [sys.executable, str(path)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment(), capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path), "slow"], env=environment(), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "4":
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL and (tmp_path / "state").exists()
    subprocess.run([*command, str(tmp_path)], check=True, env=environment(), capture_output=True)
    resumed, whole = (lora.Adapter.load(folder / "adapter.safetensors") for folder in (tmp_path, tmp_path / "whole"))
    assert resumed.meta == whole.meta
    assert_same(whole, resumed, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(script(tmp_path, dropout=0.0)), str(tmp_path)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(step) for step in range(7)]  # one process reports
    two, one = lora.Adapter.load(tmp_path / "adapter.safetensors"), train(dropout=0.0)
    for row, same in zip(one.meta["history"], two.meta["history"], strict=True):
        assert json.loads(json.dumps(same)) == pytest.approx(row, rel=1e-4)
    assert_same(one, two, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("name", "kind", "processes"), [("cards", "MULTI_GPU", 4), ("fsdp", "FSDP", 8)])
def test_accelerate_reads_the_shipped_settings(name, kind, processes):
    config = load_config_from_file(str(ROOT / "data" / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == kind and config.num_processes == processes and config.mixed_precision == "bf16"
    if name == "fsdp":
        parser = launch_command_parser()
        given = {f"fsdp_{key.removeprefix('fsdp_')}" for key in config.fsdp_config}
        assert given <= {action.dest for action in parser._actions}
