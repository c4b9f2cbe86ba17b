"""The campaign of faults sees the harm that it looks for."""

import html
import json
import os
import random
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.faults import __main__, canaries, content, flips, markup
from benchmarks.faults.children import Ended
from benchmarks.faults.row import Row, table
from mpstudy.store.paths import ROOT

ONE_OF_EACH = """
import random, sys
from pathlib import Path
from benchmarks.faults import children, flips, kills
from benchmarks.faults.commands import Bench
from benchmarks.faults.row import Row, table
children.warm()
bench, row = Bench(Path(sys.argv[1])), Row("flip", flips.POSSIBLE)
flips.TARGETS["scores"](bench, random.Random(0), row, 0)
print(table([*kills.campaign(bench, random.Random(0), 2, ("score",)), row]))
"""


def ended(status: int, err: str) -> Ended:
    return Ended(status, "", err, 1.0)


@pytest.mark.slow
def test_kills_and_a_flipped_bit_are_counted(tmp_path):
    command = [sys.executable, "-c", ONE_OF_EACH, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "| kill: `score` | 2 | – | 0 | 0 | 0 | 0 | – |",
        "| flip | 1 | 0 | – | 0 | 0 | – | – |",
    ]


def test_a_refusal_is_one_line_and_status_2():
    assert ended(2, "step 1\nerror: no room\n").is_refusal
    assert not ended(1, "error: no room\n").is_refusal
    assert not ended(2, "error: no room\nerror: more\n").is_refusal
    assert not ended(2, "Traceback (most recent call last):\nerror: no room\n").is_refusal
    assert not ended(2, "").is_refusal and not ended(0, "").is_refusal


def test_content_sees_a_changed_tensor_but_not_the_order_of_metadata(tmp_path):
    known = []
    for number, (value, meta) in enumerate([(1.0, {"a": "1", "b": "2"}), (1.0, {"b": "2", "a": "1"}), (2.0, {})]):
        file = tmp_path / str(number) / "x.safetensors"
        file.parent.mkdir()
        save_file({"x": torch.tensor([value])}, file, metadata=meta or {"a": "1", "b": "2"})
        known.append(content.content(file.parent))
    assert known[0] == known[1] != known[2] and list(known[0]) == ["x.safetensors"]
    assert content.content(tmp_path / "nothing") == {}


def test_a_result_counts_without_its_timings_and_only_with_its_files(tmp_path):
    file = tmp_path / "tiny" / "results" / "write.json"
    file.parent.mkdir(parents=True)
    known = []
    for seconds, value in ((1, 2), (5, 2), (1, 3)):
        file.write_text(json.dumps({"files": ["write.html"], "value": value, "provenance": {"seconds": seconds}}))
        known.append(content.content(tmp_path))
    assert known[0] == known[1] != known[2]
    assert not content.whole_results(tmp_path)
    (tmp_path / "tiny" / "write.html").touch()
    assert content.whole_results(tmp_path)
    file.write_text('{"files": [')
    assert not content.whole_results(tmp_path)


def test_what_a_kill_may_leave_is_found(tmp_path):
    (tmp_path / "out").mkdir()
    assert content.leftovers(tmp_path, tmp_path / "out") == []
    (tmp_path / ".out.writing-a1").mkdir()
    (tmp_path / "out.state").touch()
    assert content.leftovers(tmp_path, tmp_path / "out") == [".out.writing-a1", "out.state"]


def test_a_flip_turns_one_bit(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(bytes(8))
    flips.flip(random.Random(0), file)
    assert sum(byte.bit_count() for byte in file.read_bytes()) == 1


def test_the_canaries_would_sing(tmp_path):
    assert canaries.proof(tmp_path / "canary")


@pytest.mark.parametrize("place", markup.PLACES)
def test_markup_is_alive_unless_escaped(place):
    text = markup.payload(place)
    quoted = f"<p>{html.escape(text)}</p>"
    for page, alive in ((f"<p>{text}</p>", True), (f'<p title="{text}"></p>', True), (quoted, False)):
        reader = markup.Reader(place)
        reader.feed(page)
        assert bool(reader.alive) == alive and reader.seen


def test_the_table_shows_what_can_arise_and_replaces_the_one_before(tmp_path, capsys):
    row = Row("kill", ("lost", "left"))
    row.tried()
    row.harm("left", "x")
    assert table([row]).splitlines()[2] == "| kill | 1 | – | 0 | – | – | 1 | – |" and row.harms == 1
    page = tmp_path / "page.md"
    page.write_text(f"before\n{__main__.BEGIN}\nold\n{__main__.END}\nafter\n")
    __main__.write(page, "new")
    assert page.read_text() == f"before\n{__main__.BEGIN}\nnew\n{__main__.END}\nafter\n"
