"""Every command answers a mistake at once, in one line: before torch, or what else takes seconds, is imported."""

import json
import subprocess
import sys

import pytest

from mpstudy.store.paths import ROOT

HEAVY = {"torch", "transformers", "datasets", "scipy", "pandas", "matplotlib", "papermill"}
MAIN = f"""
import json, sys
from mpstudy.__main__ import main
status = main(json.loads(sys.argv[1]))
print(json.dumps([status, sorted({HEAVY!r} & sys.modules.keys())]))
"""
SCORE = "score ./model --pruner taylor --layers 1 --out new/scores "
EVALUATE = "evaluate ./model --text book.txt "
PRUNE = "prune ./model --scores book.txt --out new "
SPARSIFY = "sparsify ./model --method wanda --sparsity 0.5 --layers 1 --out new "
RECOVER = "recover ./model --out new "
RUN = "run 20_moreau_pruning "

MISTAKES = {
    # what argparse reads
    "": "the following arguments are required: COMMAND; `python -m mpstudy --help` shows how",
    "scor": "argument COMMAND: invalid choice: 'scor'",
    "score": "required: MODEL, --pruner, --layers, --out; `python -m mpstudy score --help` shows how",
    SCORE + "--seed x": "argument --seed: invalid int value: 'x'",
    SCORE + "--tokens a --corpus b": "not allowed with argument",
    EVALUATE + "--bos maybe": "argument --bos: invalid choice: 'maybe'",
    "prune ./model --scores s --ratio 0.2 --out new --scope all": "argument --scope: invalid choice: 'all'",
    "status --verbose": "unrecognized arguments: --verbose",
    # numbers
    PRUNE + "--ratio 1": "--ratio must be a number in [0, 1), not 1.0",
    PRUNE + "--ratio 0.2 --repair bias --strength -1": "--strength must be a finite number >= 0, not -1.0",
    PRUNE + "--ratio 0.2 --repair bias --length 999": "999 tokens has no room in the 256 positions",
    PRUNE + "--ratio 0.2 --calibration wiki": "--calibration, --tokens and --strength are of a repair: name one",
    PRUNE + "--ratio 0.2 --multiple 0": "--multiple must be a whole number of at least 1, not 0",
    SCORE + "--seed -1": "--seed must be a whole number from 0 to 2**53 - 1, not -1",
    SCORE + f"--sample-seed {2**53}": f"--sample-seed must be a whole number from 0 to 2**53 - 1, not {2**53}",
    SCORE + "--samples 0": "--samples must be a whole number of at least 1, not 0",
    SCORE + "--length 1": "--length must be a whole number of at least 2, not 1",
    "sparsify ./model --method wanda --sparsity 0.5 --layers 1 --out new --sample-seed -1": "--sample-seed must be",
    EVALUATE + "--window 1": "--window must be a whole number of at least 2, not 1",
    EVALUATE + "--limit 0": "--limit must be a whole number of at least 1, not 0",
    RECOVER + "--lr nan": "--lr must be a finite number > 0, not nan",
    RECOVER + "--seed -1": "--seed must be a whole number from 0 to 2**53 - 1, not -1",
    RECOVER + "--rows 0": "--rows must be a whole number of at least 1, not 0",
    "report --jobs 0": "--jobs must be a whole number of at least 1, not 0",
    "reproduce --seeds 1000000000": "a count of seeds must be a whole number from 1 to 10000, not '1000000000'",
    "report --seeds many": "seeds must be a count or a comma list of whole numbers, not 'many'",
    # files, folders and names
    PRUNE.replace("book.txt", "absent") + "--ratio 0.2": "there is no file of scores absent: `score` writes one",
    PRUNE.replace("new", "model") + "--ratio 0.2": "model exists and is not a pruned checkpoint; choose another folder",
    PRUNE.replace("./model", "./absent") + "--ratio 0.2": "no model './absent': give a bundled name",
    SPARSIFY.replace("new", "model"): "model exists; choose another folder",
    SPARSIFY.replace("new", "book.txt/new"): "cannot write to the folder book.txt: ",
    SPARSIFY + "--length 999": "999 tokens has no room in the 256 positions",
    "export ./model --out model": "model exists; choose another folder",
    "export ./absent --out new": "no model './absent': give a bundled name",
    RECOVER + "--cutoff 257": "257 tokens has no room in the 256 positions of the model: at most 256",
    RECOVER.replace("new", "/proc/no/new"): "cannot write to the folder /proc/no: ",
    RECOVER.replace("./model", "./absent"): "no model './absent': give a bundled name",
    SCORE.replace("./model", "./absent"): "no model './absent': give a bundled name",
    SCORE.replace("./model", "owner/absent"): "model 'owner/absent' is not in the local cache",
    SCORE + "--tokens absent.npy": "cannot read tokens from 'absent.npy': ",
    SCORE + "--tokens book.txt": "cannot read tokens from 'book.txt': ",
    SCORE + "--set rho": "--set takes KEY=VALUE, not 'rho'",
    SCORE.replace("new/scores", "book.txt/new"): "cannot write to the folder book.txt: ",
    SCORE.replace("new/scores", "book.txt"): "--out book.txt exists and holds no scores; choose another file",
    SCORE.replace("new/scores", "/dev/null"): "--out /dev/null exists and holds no scores; choose another file",
    SCORE + "--tokens book.txt --bos yes": "--bos is about samples of a corpus; those of --tokens are used as they are",
    SCORE.replace("new/scores", "n" * 300 + "/x"): "File name too long",
    "export " + "n" * 300 + " --out new": "File name too long",
    "export ./model --out .": ". exists; choose another folder",
    RECOVER + "--rows 8": "warmup_steps 100 must be below the 2 steps of 8 rows",
    SCORE.replace("new/scores", "model"): "--out model is a folder; name a file",
    "evaluate ./model": "evaluate needs a text or tasks",
    EVALUATE.replace("./model", "./absent"): "no model './absent': give a bundled name",
    EVALUATE.replace("book", "absent"): "cannot read the text 'absent.txt': ",
    EVALUATE + "--tasks facts no": "unknown zero-shot task 'no'; known: ",
    "data --for no": "unknown optional model 'no'; known: ",
    # the study's own
    **{f"{name} --profile no": "unknown profile 'no'; known: " for name in ("report", "reproduce", "status", "adopt")},
    "claims --profile no": "unknown profile 'no'; known: ",
    "html --profile no": "unknown report 'no'; known: ",
    "report --only no": "unknown run 'no'; known: ",
    "reproduce --claim no": "unknown claim 'no'; known: ",
    "run no": "unknown notebook 'no'; known: ",
    RUN + "--profile no": "unknown profile 'no'; known: ",
    RUN + "--name a/b": "run name 'a/b' may hold letters",
    RUN + "-p no=1": "unknown parameter of 20_moreau_pruning 'no'; known: ",
    RUN + "-p rho=-1": "rho must be a finite number > 0, not -1.0",
    RUN + "-p rho=2:4": "parameter 'rho' must be a number, such as -p rho=0.05, not '2:4'",
    RUN + "-p seeds=3": "parameter 'seeds' must be a list, such as -p 'seeds=[0, 1, 2]', not '3'",
    RUN + f"-p seeds=[{2**53}]": "element 0 of seeds must be a whole number from 0 to 2**53 - 1",
    RUN + "-p warmup_steps=4": "unknown parameter of 20_moreau_pruning 'warmup_steps'",
    RUN + "--reports book.txt": "cannot write to the folder book.txt/custom: ",
    RUN + "-p model=absent": "no model 'absent': give a bundled name",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of which there is only a config, and a text."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 256}')
    (folder / "book.txt").write_text("It was the best of times.")
    return folder


@pytest.mark.parametrize(("command", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_answered_in_one_line_and_without_torch(folder, monkeypatch, command, said):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [sys.executable, "-c", MAIN, json.dumps(command.split())]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout) == [2, []]
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (folder / "new").exists()


def test_the_process_has_status_2(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, "-m", "mpstudy", "scor"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("error: argument COMMAND: ")
