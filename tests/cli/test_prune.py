"""The commands ``sparsify`` and ``export``, and ``prune`` for them; its errors are in test_cli_model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_folder, tokens
from transformers import AutoModelForCausalLM

import mpstudy
from mpstudy import __main__
from mpstudy.cli import sparsify
from mpstudy.inputs import models
from mpstudy.sparse import barber, importance, sequential
from mpstudy.structure.shares import unit_sizes
from mpstudy.structure.units import prunable_units

SPARSIFY = "sparsify model --tokens batch.npy --layers 1-2 --method wanda --sparsity 0.5 --out sparse"


@pytest.fixture
def home(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "model", num_hidden_layers=4)
    np.save(tmp_path / "batch.npy", tokens(3, 16).numpy())
    monkeypatch.setattr(models, "default_device", lambda: "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    return __main__.main(command.replace(" model", " ./model").split())


def projections(folder, layer):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return [part.weight for part in model.model.layers[layer].modules() if isinstance(part, torch.nn.Linear)]


@pytest.mark.parametrize("method, update", [("wanda", "none"), ("sparsegpt", "exact"), ("admm-gradual", "none")])
def test_sparse_weights_in_a_standard_checkpoint(home, capsys, method, update):
    assert run(SPARSIFY.replace("wanda", method) + f" --update {update}") == 0
    written = capsys.readouterr()
    assert "50.0% of the weights of 14 linear layers are zero" in written.out
    lines = [line for line in written.err.splitlines() if line.startswith("model.layers.")]
    assert len(lines) == 14 and lines[-1].startswith("model.layers.2.mlp.down_proj: 50.0% zeros, error 0.")
    assert [line.rpartition(" left for ")[2] for line in lines[:-1]] == [str(left) for left in range(13, 0, -1)]
    for layer in (1, 2):
        assert [float((w == 0).float().mean()) for w in projections("sparse", layer)] == [0.5] * 7
    assert all((w != 0).all() for w in projections("sparse", 3))
    assert not (home / "sparse.state").exists()


@pytest.mark.parametrize("method", importance.ELEMENTWISE)
def test_masks_by_scores_keep_the_largest(home, method):
    model = models.load_model("./model")
    name = "model.layers.1.mlp.down_proj.weight"
    scores = importance.element_scores(method, model, [tokens(3, 16)], prunable_units(model, "1-2"))[name]
    assert run(SPARSIFY.replace("wanda", method).replace("0.5", "2:4")) == 0
    pruned = AutoModelForCausalLM.from_pretrained("sparse").get_parameter(name).unflatten(1, (-1, 4))
    largest = scores.unflatten(1, (-1, 4)).topk(2, dim=-1).indices
    assert (pruned.gather(-1, largest) != 0).all() and (pruned != 0).sum() == pruned.numel() // 2


def test_a_stopped_run_goes_on(home, monkeypatch, capsys):
    assert run(SPARSIFY.replace("out sparse", "out whole")) == 0

    def stop(progress, row):
        if row["layer"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sparsify._Progress, "__call__", stop)
        assert run(SPARSIFY) == 130
    assert (home / "sparse.state").exists() and not (home / "sparse").exists()
    assert run(SPARSIFY) == 0
    whole, resumed = (AutoModelForCausalLM.from_pretrained(name).state_dict() for name in ("whole", "sparse"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_rebuilt_masks_are_as_sparse_and_say_whether_the_error_fell(home, capsys):
    command = SPARSIFY.replace("wanda", "magnitude")
    assert run(command.replace("out sparse", "out plain")) == 0
    capsys.readouterr()
    assert run(f"{command} --rebuild matrix --swaps 0.5") == 0
    written = capsys.readouterr()
    assert "rebuilt by matrix: " in written.out and " swaps in 4 blocks; the error on the calibration" in written.out
    assert [line.split(":")[0] for line in written.err.splitlines() if " swaps, error 0." in line] == [
        f"layer {layer}, {block}" for layer in (1, 2) for block in ("attention", "mlp")
    ]
    for one, two in zip(projections("plain", 1), projections("sparse", 1)):
        assert (two == 0).sum() == (one == 0).sum() and not torch.equal(one == 0, two == 0)
    assert not (home / "sparse.state").exists()


def test_a_stopped_rebuild_goes_on(home, monkeypatch):
    command = f"{SPARSIFY.replace('wanda', 'magnitude')} --rebuild block"
    assert run(command.replace("out sparse", "out whole")) == 0

    swapped, calls = barber.swapped, []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return swapped(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(barber, "swapped", stop)
        assert run(command) == 130
    kept = sorted(path.relative_to(home).as_posix() for path in (home / "sparse.state").rglob("*.safetensors"))
    places = ["sparse.state/block-0.1/layer-1.safetensors", "sparse.state/layer-1.safetensors"]
    assert kept == [*places, "sparse.state/layer-2.safetensors"] and not (home / "sparse").exists()
    monkeypatch.setattr(sequential, "_prune", None)  # nothing is pruned again
    assert run(command) == 0
    whole, resumed = (AutoModelForCausalLM.from_pretrained(name).state_dict() for name in ("whole", "sparse"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_rebuild_that_swaps_nothing_says_so(home, capsys):
    assert run(f"{SPARSIFY} --rebuild column") == 0
    assert (
        "nothing was swapped: of 1000 pairs with a gain one would be; give a larger --swaps" in capsys.readouterr().out
    )


def test_the_time_left_is_estimated_without_what_an_earlier_run_pruned(monkeypatch, capsys):
    times = iter([0.0, 0.01, 0.02, 2.02, 6.02, 8.02])
    monkeypatch.setattr(sparsify, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    progress = sparsify._Progress(5)
    for name in "abcde":
        progress({"linear": name, "zeros": 0.5, "error": 0.1, "seconds": 1.5})
    ends = [line.partition("; ")[2] for line in capsys.readouterr().err.splitlines()]
    assert ends == ["", "", "4.0 s left for 2", "3.0 s left for 1", ""]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("wanda", "obs", "unknown method 'obs'; known: "),
        ("0.5", "1.5", "a sparsity is a number in [0, 1) or n:m"),
        ("0.5", "5:9", "columns, which 5:9 does not divide"),
        ("1-2", "1-9", "layers '1-9' are not inside this model's layers 0-3"),
        ("out sparse", "out model", "model exists; choose another folder"),
        ("wanda", "wanda --update obs", "unknown update 'obs'; known: "),
        ("wanda", "wanda --rebuild head", "unknown scope 'head'; known: block, column, matrix, row"),
        ("wanda", "wanda --rebuild row --swaps 2", "--swaps must be a number in [0, 1], not 2.0"),
        ("wanda", "wanda --update admm --rebuild row", "their dense values: --update admm is lost"),
        ("wanda", "wanda --swaps 0.1", "--swaps is a share of the pairs of --rebuild, which is missing"),
        ("0.5", "2:4 --rebuild block", "2:4 masks are rebuilt in their rows: the scope is row, not block"),
    ],
)
def test_bad_input_is_one_line(home, capsys, old, new, message):
    assert run(SPARSIFY.replace(old, new)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (home / "sparse").exists()


def test_an_even_plan_is_exported(home, capsys):
    assert run("score model --pruner taylor --tokens batch.npy --layers 0-3 --out t.safetensors") == 0
    assert run("prune model --scores t.safetensors --ratio 0.5 --multiple 5 --out pruned") == 0
    assert run("export pruned --out standard") == 0
    pruned, standard = mpstudy.load_pruned("pruned"), AutoModelForCausalLM.from_pretrained("standard").eval()
    assert standard.config.intermediate_size % 5 == 0
    with torch.no_grad():
        assert torch.equal(pruned(tokens()).logits, standard(tokens()).logits)
    assert run("prune model --scores t.safetensors --ratio 0.5 --multiple 0 --out again") == 2
    assert run("prune model --scores t.safetensors --ratio 0.5 --multiple 5 --scope global --out again") == 2
    assert "multiple must be a whole number of at least 1, not 0" in capsys.readouterr().err


def test_hidden_dimensions_are_scored_and_pruned(home):
    scores = "score model --pruner taylor-vector --set reduction=max --tokens batch.npy --layers hidden"
    assert run(f"{scores} --out h.safetensors") == 0
    assert run("prune model --scores h.safetensors --ratio 0.25 --out pruned") == 0
    assert mpstudy.load_pruned("pruned").config.hidden_size == 24


def test_joint_scope_removes_the_ratio_of_the_parameters_of_the_units(home, capsys):
    assert run("score model --pruner flap --set metric=IFV --tokens batch.npy --layers 0-3 --out f.safetensors") == 0
    assert run("prune model --scores f.safetensors --ratio 0.3 --scope joint --out pruned") == 0
    dense, smaller = models.load_model("./model"), mpstudy.load_pruned("pruned")
    sizes = unit_sizes(dense, prunable_units(dense, "0-3"))
    whole = sum(sizes[key] * count for key, count in prunable_units(dense, "0-3").counts.items())
    gone = dense.num_parameters() - smaller.num_parameters()
    assert abs(gone - 0.3 * whole) <= max(sizes.values()) / 2
    left = prunable_units(smaller, "0-3").counts
    assert min(left.values()) >= 1
    heads = sum(count for key, count in left.items() if "attention" in key)
    assert f"  {8 - heads} of 8 head groups removed" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "options, message",
    [
        ("--ratio 0.3", "for a plan of ratio 0.5 of the units; for this one score with --set ratio=0.3 --set of=units"),
        (
            "--ratio 0.5 --scope joint --multiple 4",
            "multiple needs local scope: joint scope leaves layers of any width",
        ),
        ("--ratio 0.9 --scope joint", "ratio 0.9 with joint scope cannot be met: with the best unit of each kind kept"),
    ],
)
def test_plans_that_the_scores_or_the_scope_do_not_allow(home, capsys, options, message):
    score = "score model --pruner wanda-sp --set ratio=0.5 --tokens batch.npy --layers 1-2 --out w.safetensors"
    assert run(score) == 0
    assert run("prune model --scores w.safetensors --ratio 0.5 --out pruned") == 0
    assert set(prunable_units(mpstudy.load_pruned("pruned"), "1-2").counts.values()) == {1, 12}
    capsys.readouterr()
    assert run(f"prune model --scores w.safetensors {options} --out again") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (home / "again").exists()


def test_another_name_of_the_package_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'load_dense'"):
        mpstudy.load_dense  # noqa: B018
