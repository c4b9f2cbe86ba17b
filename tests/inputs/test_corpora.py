"""Corpora, windows and calibration samples; hub corpora through small local copies and a hub of our own."""

import gzip
import hashlib
import http.server
import itertools
import json
import re
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mpstudy.errors import StudyError
from mpstudy.inputs import corpora, hub

BUNDLED_TEXTS = ["sotu-early", "sotu-late", "wiki", "novel", "c4-demo"]
BOS = 0

# What the hub's copy of WikiText-2 looks like: a row a line, with its end, blank lines empty.
WIKI_ROWS = ["", " = Robert = \n", "", " Robert is an English actor . \n", " He had a role . \n"]
WIKI_RAW = " \n = Robert = \n \n Robert is an English actor . \n He had a role . \n"
PTB_ROWS = ["consumers may want to move", "the yield fell to N %"]
INSTRUCTIONS = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Greet.", "input": "", "output": "Hello"},
]


class NumberTokenizer:
    """Turns a text of numbers into these numbers, so that a test can see where tokens come from."""

    bos_token_id = None

    def __call__(self, text, **_):
        return {"input_ids": [int(word) for word in text.split()]}


def numbers(first: int, count: int) -> str:
    return " ".join(str(first + i) for i in range(count))


@pytest.fixture
def tokenizer_with_bos():
    words = Tokenizer(models.WordLevel({"<s>": BOS, "a": 1, "b": 2, "<unk>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="<unk>")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What ``datasets`` and the hub's client keep goes to the test's own folder."""
    monkeypatch.setattr(hub, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv(hub.LOCAL_VARIABLE, raising=False)


def write_parquet(file: Path, columns: dict) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


# --- bundled corpora --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("sotu-early", 156, "Fellow-Citizens of the Senate", "opportunities that God has given us."),
        ("sotu-late", 81, "[Released January 21, 1946.", "Thank you. Thank you."),
        ("wiki", 30, "Anarchism is a political", "Writers from Las Vegas"),
        ("novel", 11, "Because of an hereditary", "in the Yogen temple at Kobinata."),
        ("c4-demo", 300, "Don’t think you need", "to suit your functions."),
    ],
)
def test_bundled_texts(name, count, first, last):
    texts = corpora.load_texts(name)
    assert len(texts) == len(set(texts)) == count
    assert texts[0].startswith(first) and texts[-1].rstrip().endswith(last)


def test_no_gutenberg_licence_in_the_novel():
    assert not any(re.search(r"gutenberg|CHAPTER [IVX]", chapter) for chapter in corpora.load_texts("novel"))


def test_bundled_instructions():
    rows = corpora.load_instructions("alpaca-demo")
    assert len(rows) == 999
    assert all(set(row) == {"instruction", "input", "output"} and row["output"] for row in rows)


def test_calibration_and_held_out_are_disjoint():
    """No document and no run of 40 words of one part stands in another."""
    rows = corpora.load_instructions("alpaca-demo")
    parts = {name: corpora.load_texts(name) for name in ("sotu-early", "sotu-late", "wiki", "novel")}
    parts["alpaca-demo"] = [f"{row['instruction']} {row['input']} {row['output']}" for row in rows]
    runs = {name: set().union(*map(word_runs, texts)) for name, texts in parts.items()}
    documents = {name: {text.strip() for text in texts} for name, texts in parts.items()}
    for first, second in itertools.combinations(parts, 2):
        assert not documents[first] & documents[second], f"{first} and {second} share a document"
        assert not runs[first] & runs[second], f"{first} and {second} share a passage"


def word_runs(text: str, length: int = 40) -> set[int]:
    """One number for each run of ``length`` words: the sum of their hashes, weighted by their place in it."""
    codes = np.array([hash(word) for word in re.findall(r"\w+", text.lower())], dtype=np.int64)
    count = max(0, len(codes) - length + 1)
    return set(sum((2 * place + 1) * codes[place : place + count] for place in range(length)).tolist())


def test_word_runs_see_a_shared_passage():
    passage, shorter, turned = numbers(0, 40), numbers(0, 39), " ".join(reversed(numbers(0, 40).split()))
    assert len(word_runs(f"one two {passage} three") & word_runs(f"{passage} four")) == 1
    assert not word_runs(f"one two {shorter} three") & word_runs(f"{shorter} four")
    assert not word_runs(passage) & word_runs(turned)


def test_the_registry_is_complete():
    texts = {name for name, corpus in corpora.CORPORA.items() if corpus.kind == "text"}
    assert texts == {*BUNDLED_TEXTS, "wikitext2", "ptb", "c4", "bookcorpus"}
    assert corpora.CORPORA.keys() - texts == {"alpaca-demo", "alpaca-cleaned"}


@pytest.mark.parametrize(
    ("load", "name"),
    [(corpora.load_texts, "wikki"), (corpora.load_texts, "alpaca-demo"), (corpora.load_instructions, "wiki")],
)
def test_unknown_corpus_names_the_known_ones(load, name):
    known = "alpaca-cleaned, alpaca-demo" if load is corpora.load_instructions else "bookcorpus, c4, c4-demo"
    with pytest.raises(StudyError, match=f"unknown .* corpus '{name}'; known: {known}"):
        load(name)


def test_a_bundled_corpus_has_no_local_copy(tmp_path):
    with pytest.raises(StudyError, match="'wiki' is bundled; local copies are of wikitext2"):
        corpora.load_texts("wiki", local=tmp_path)


# --- instructions -----------------------------------------------------------------------------------


def test_split_instructions_shares_no_prompt():
    rows = [{"instruction": f"{i % 40}", "input": "", "output": f"{i}"} for i in range(100)]
    training, validation = corpora.split_instructions(rows, validation=20, seed=0)
    assert len(validation) == 20
    prompts = [{row["instruction"] for row in part} for part in (training, validation)]
    assert not prompts[0] & prompts[1]
    assert prompts[0] | prompts[1] == {row["instruction"] for row in rows}


def test_split_instructions_keeps_every_distinct_row_once():
    rows = [{"instruction": f"{i}", "input": "", "output": ""} for i in range(50)]
    training, validation = corpora.split_instructions(rows, validation=10, seed=0)
    assert sorted(int(row["instruction"]) for row in training + validation) == list(range(50))
    assert corpora.split_instructions(rows, validation=10, seed=0) == (training, validation)
    assert corpora.split_instructions(rows, validation=10, seed=1) != (training, validation)


@pytest.mark.parametrize("validation", [-1, 0, 2, 3])
def test_split_instructions_needs_rows_on_both_sides(validation):
    with pytest.raises(StudyError, match=f"validation = {validation} of 2 rows: allowed is 1 to 1"):
        corpora.split_instructions(INSTRUCTIONS, validation=validation, seed=0)


# --- windows ----------------------------------------------------------------------------------------


def test_windows_follow_each_other_and_the_partial_one_is_dropped():
    windows = corpora.text_windows(NumberTokenizer(), numbers(0, 14), window=4)
    assert windows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert windows.dtype == torch.int64


@pytest.mark.parametrize(
    ("most", "starts"), [(1, [0]), (2, [0, 20]), (3, [0, 12, 24]), (10, list(range(0, 40, 4))), (99, None)]
)
def test_chosen_windows_are_spread_over_the_text(most, starts):
    windows = corpora.text_windows(NumberTokenizer(), numbers(0, 40), window=4, max_windows=most)
    assert windows[:, 0].tolist() == (starts or list(range(0, 40, 4)))


@pytest.mark.parametrize(("bos", "first"), [(None, [BOS]), (True, [BOS]), (False, [])])
def test_windows_and_samples_begin_with_bos_as_the_tokenizer_does(tokenizer_with_bos, bos, first):
    text = "a b " * 10
    windows = corpora.text_windows(tokenizer_with_bos, text, window=4, bos=bos)
    assert windows.tolist() == [[*first, 1, 2, 1, 2]] * 5 and windows.dtype == torch.int64
    assert corpora.text_windows(tokenizer_with_bos, text, window=4, max_windows=2, bos=bos).shape == (2, 4 + len(first))
    samples = corpora.sample_windows(tokenizer_with_bos, [text] * 3, samples=3, length=20, seed=0, bos=bos)
    assert samples.tolist() == [[*first, *[1, 2] * 10]] * 3


def test_corpus_windows_join_the_documents(tmp_path):
    copy = write_parquet(tmp_path / "hub" / "ptb" / "valid.parquet", {"sentence": ["1 2 3", "4 5 6 7"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(hub.LOCAL_VARIABLE, str(copy.parents[1]))
        assert corpora.corpus_windows(NumberTokenizer(), "ptb", window=3).tolist() == [[1, 2, 3], [4, 5, 6]]
        patch.setattr(corpora, "MOST_CHARACTERS", 6)
        assert corpora.corpus_windows(NumberTokenizer(), "ptb", window=3).tolist() == [[1, 2, 3]]


def test_a_text_too_short_for_the_window():
    with pytest.raises(StudyError, match="text too short: 3 tokens, the window needs 4"):
        corpora.text_windows(NumberTokenizer(), numbers(0, 3), window=4)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"window": -1}, {"window": 2, "max_windows": 0}])
def test_windows_are_counted_from_one(wrong):
    with pytest.raises(StudyError, match=f"{[*wrong][-1]} must be a whole number of at least 1, not (0|-1)"):
        corpora.text_windows(NumberTokenizer(), numbers(0, 9), **wrong)


# --- calibration ------------------------------------------------------------------------------------

# 20 documents of 30 tokens whose values tell the document (hundreds) and the position (the rest).
DOCUMENTS = [numbers(100 * i, 30) for i in range(20)]


def sampled(seed=0, samples=10, length=8, documents=DOCUMENTS):
    return corpora.sample_windows(NumberTokenizer(), documents, samples=samples, length=length, seed=seed)


def test_samples_are_whole_windows_of_distinct_documents():
    windows = sampled()
    assert windows.shape == (10, 8) and windows.dtype == torch.int64
    assert (windows.diff(dim=1) == 1).all()
    assert len({int(start) // 100 for start in windows[:, 0]}) == 10
    assert len({int(start) % 100 for start in windows[:, 0]}) > 1


def test_the_seed_decides_alone():
    torch.manual_seed(1)
    first = sampled(seed=5)
    torch.manual_seed(2)
    assert torch.equal(first, sampled(seed=5))
    assert not torch.equal(first, sampled(seed=6))


def test_the_global_random_state_is_untouched():
    before = torch.get_rng_state()
    sampled()
    corpora.split_instructions(INSTRUCTIONS, validation=1, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_documents_come_again_when_all_were_used():
    windows = sampled(samples=50)
    counts = torch.bincount(windows[:, 0] // 100, minlength=20)
    assert counts.min() >= 2 and counts.max() <= 3


def test_short_documents_are_passed_over():
    windows = sampled(documents=[*DOCUMENTS[:2], numbers(900, 7)], samples=6)
    assert set((windows // 100).flatten().tolist()) == {0, 1}


def test_a_window_can_be_the_whole_document():
    assert sampled(documents=["1 2 3"], samples=1, length=3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("documents", [[], DOCUMENTS])
def test_no_document_is_long_enough(documents):
    with pytest.raises(StudyError, match=f"no document of 31 tokens among the {len(documents)}"):
        sampled(documents=documents, length=31)


def test_more_samples_than_a_corpus_has_places_are_refused_at_once():
    places = sum(map(len, DOCUMENTS))
    corpora.check_samples(DOCUMENTS, places)
    with pytest.raises(StudyError, match=f"{10**9} samples are wanted of a corpus of {places} bytes"):
        sampled(samples=10**9)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"length": 0}])
def test_samples_are_counted_from_one(wrong):
    with pytest.raises(StudyError, match=f"{next(iter(wrong))} must be a whole number of at least 1, not 0"):
        sampled(**wrong)


def test_calibration_batch_reads_the_corpus(tokenizer_with_bos):
    batch = corpora.calibration_batch(tokenizer_with_bos, "c4-demo", samples=3, length=16, seed=0)
    assert batch.shape == (3, 1 + 16)
    again = corpora.sample_windows(tokenizer_with_bos, corpora.load_texts("c4-demo"), samples=3, length=16, seed=0)
    assert torch.equal(batch, again)


# --- local copies of hub corpora --------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "folder", "layout"])
def test_parquet_copy(tmp_path, place):
    layout = hub.SOURCES["wikitext2"].files[0]
    name = layout if place == "layout" else "test.parquet"
    file = write_parquet(tmp_path / "copy" / name, {"text": WIKI_ROWS})
    write_parquet(file.with_name("train.parquet"), {"text": ["the training split"]})
    assert list(corpora.load_texts("wikitext2", file if place == "file" else tmp_path / "copy")) == WIKI_ROWS


def test_raw_text_gives_the_rows_of_the_hub(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(WIKI_RAW)
    (tmp_path / "ptb.valid.txt").write_text("".join(f" {row} \n" for row in PTB_ROWS))
    assert list(corpora.load_texts("wikitext2", tmp_path)) == WIKI_ROWS
    assert list(corpora.load_texts("ptb", tmp_path)) == PTB_ROWS


def test_compressed_json_lines_copy(tmp_path):
    rows = [{"text": "first document", "url": "a"}, {"text": "second\ndocument", "url": "b"}]
    with gzip.open(tmp_path / "c4-train.00000-of-01024.json.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert list(corpora.load_texts("c4", tmp_path)) == ["first document", "second\ndocument"]


def test_several_files_are_read_in_order(tmp_path):
    for part in range(10):
        write_parquet(tmp_path / f"plain_text/train/{part:04d}.parquet", {"text": [f"sentence {part}"]})
    texts = corpora.load_texts("bookcorpus", tmp_path)
    assert len(texts) == 10 and texts[3] == "sentence 3"


@pytest.mark.parametrize("lines", [False, True])
def test_instruction_copy(tmp_path, lines):
    rows = [row | {"note": "dropped"} for row in INSTRUCTIONS]
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    (tmp_path / ("alpaca.jsonl" if lines else "alpaca_data_cleaned.json")).write_text(text)
    assert corpora.load_instructions("alpaca-cleaned", tmp_path) == INSTRUCTIONS


@pytest.mark.parametrize("field", ["instruction", "output"])
def test_an_instruction_without_text_names_its_row(tmp_path, field):
    rows = [INSTRUCTIONS[0], INSTRUCTIONS[0] | {field: None}]
    (tmp_path / "alpaca_data_cleaned.json").write_text(json.dumps(rows))
    with pytest.raises(StudyError, match=f"alpaca-cleaned: row 1 has no {field}"):
        corpora.load_instructions("alpaca-cleaned", tmp_path)


def test_an_instruction_without_input_has_none(tmp_path):
    rows = [INSTRUCTIONS[0], INSTRUCTIONS[0] | {"input": None}]
    (tmp_path / "alpaca_data_cleaned.json").write_text(json.dumps(rows))
    assert corpora.load_instructions("alpaca-cleaned", tmp_path)[1] == INSTRUCTIONS[0] | {"input": ""}


@pytest.mark.parametrize("answer", [3, 3.5, True, [1], ["text"], {"a": 1}, [], {}])
def test_an_answer_that_is_no_text_is_one_line(tmp_path, answer):
    (tmp_path / "alpaca_data_cleaned.json").write_text(json.dumps([INSTRUCTIONS[0] | {"output": answer}]))
    with pytest.raises(StudyError, match="has no text column 'output'|cannot be read as json") as caught:
        corpora.load_instructions("alpaca-cleaned", tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_rows_without_text_are_counted(tmp_path):
    write_parquet(tmp_path / "test.parquet", {"text": ["a", None, "b", None]})
    with pytest.raises(StudyError, match="test.parquet: 2 rows have no 'text'"):
        corpora.load_texts("wikitext2", tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(WIKI_RAW, encoding="utf-8-sig")
    assert list(corpora.load_texts("wikitext2", tmp_path)) == WIKI_ROWS


def test_the_environment_variable_names_the_copies(tmp_path, monkeypatch):
    write_parquet(tmp_path / "ptb" / "validation.parquet", {"sentence": PTB_ROWS})
    monkeypatch.setenv(hub.LOCAL_VARIABLE, str(tmp_path))
    assert list(corpora.load_texts("ptb")) == PTB_ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.parquet", b"PAR1", "holds no test split of Salesforce/wikitext"),
        ("notes.md", b"hello", "holds no test split of Salesforce/wikitext"),
        ("test.parquet", b"not parquet", "cannot be read as parquet"),
        ("test.json", b'{"words": "a"}', "has no text column 'text'; its columns: words"),
        ("test.json", b'{"text": 3}', "has no text column 'text'"),
        ("test.txt", b"", "test.txt"),
    ],
)
def test_a_copy_that_does_not_hold_the_corpus(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match="^[^\n]*$") as error:
        corpora.load_texts("wikitext2", tmp_path)
    assert message in str(error.value)


def test_a_copy_that_is_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(StudyError, match="gone does not exist"):
        corpora.load_texts("wikitext2", tmp_path / "gone")
    (tmp_path / "test.csv").write_text("text\na\n")
    with pytest.raises(StudyError, match=r"test.csv: allowed are files of one kind that end in .parquet"):
        corpora.load_texts("wikitext2", tmp_path / "test.csv")


# --- the hub ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("name", hub.SOURCES)
def test_without_a_hub_the_error_comes_at_once(monkeypatch, name, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    load = corpora.load_instructions if name == "alpaca-cleaned" else corpora.load_texts
    start = time.monotonic()
    with pytest.raises(StudyError) as error:
        load(name)
    assert time.monotonic() - start < 15  # the stock client retries for 23 s
    assert f"$MPSTUDY_HUB_DIR/{name}/{hub.SOURCES[name].files[0]}" in str(error.value)


@pytest.fixture
def small_hub(tmp_path, monkeypatch):
    """A server that answers as the hub does, its folder of files and the list of paths it was asked for."""
    served, asked = tmp_path / "served", []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def end_headers(self):
            asked.append(self.path)
            self.send_header("X-Repo-Commit", hub.SOURCES["wikitext2"].revision)
            self.send_header("ETag", f'"{hashlib.sha1(self.path.encode()).hexdigest()}"')
            super().end_headers()

        def log_message(self, *args):
            pass

    served.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    yield served, asked
    server.shutdown()
    server.server_close()


def test_files_come_from_the_hub_and_then_from_its_cache(small_hub, monkeypatch):
    served, asked = small_hub
    source = hub.SOURCES["wikitext2"]
    write_parquet(
        served / "datasets" / source.repo / "resolve" / source.revision / source.files[0], {"text": WIKI_ROWS}
    )
    assert list(corpora.load_texts("wikitext2")) == WIKI_ROWS
    assert f"/datasets/{source.repo}/resolve/{source.revision}/{source.files[0]}" in asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked.clear()
    assert list(corpora.load_texts("wikitext2")) == WIKI_ROWS
    assert asked == []


def test_a_file_the_hub_does_not_have(small_hub):
    with pytest.raises(StudyError, match="(?s)^corpus 'ptb' cannot be loaded .*MPSTUDY_HUB_DIR/ptb"):
        corpora.load_texts("ptb")
