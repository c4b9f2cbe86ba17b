"""Models load from every place they may lie in, wholly and without surprises, or fail in one line."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers.families import tiny_family
from helpers.folders import COMMIT, SPY, booby_trap, change_config, hub_cache
from helpers.tiny import byte_tokenizer, tiny_folder, tiny_model, tokens
from transformers import Gemma3Config, Gemma3ForCausalLM, GPT2Config, LlamaConfig, LlamaForCausalLM

from mpstudy.errors import StudyError
from mpstudy.evaluation.perplexity import perplexity
from mpstudy.inputs import manifest, models, names
from mpstudy.inputs.corpora import text_windows
from mpstudy.store import digests
from mpstudy.store.paths import ROOT
from mpstudy.structure import checkpoint

GROUPED, UNGROUPED, GEMMA = names.BUNDLED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def closed_endpoint() -> str:
    """An address of this machine at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# --- Local folders ---------------------------------------------------------------------------------------------


def test_a_local_folder_loads_as_it_was_saved(folder):
    loaded = models.load_model(folder)
    assert type(loaded) is LlamaForCausalLM and not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), tiny_model().to(loaded.device).parameters()))


@pytest.mark.parametrize("dtype", models.DTYPES)
def test_the_dtype_of_the_files_is_known(tmp_path, dtype):
    model = models.in_dtype(tiny_model(), dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {models.DTYPES[dtype]}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    model.save_pretrained(tmp_path / "model", max_shard_size="50KB")
    assert models.stored_dtype(str(tmp_path / "model")) == dtype
    assert not (tmp_path / "model" / "model.safetensors").exists()  # it is in several files


def test_another_dtype_of_the_files_becomes_float32(tmp_path):
    tiny_model().double().save_pretrained(tmp_path / "model")
    assert models.stored_dtype(str(tmp_path / "model")) == "float32"


def test_a_head_of_its_own_stays_under_a_config_that_ties_it(tmp_path):
    model = tiny_model(tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "model")
    change_config(tmp_path / "model", tie_word_embeddings=True)
    loaded = models.load_model(str(tmp_path / "model"), device="cpu")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight) and not loaded.config.tie_word_embeddings
    again = checkpoint.load_pruned(checkpoint.save_pruned(loaded, tmp_path / "saved"))
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert torch.equal(again.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_weights_that_the_config_does_not_ask_for_are_named(tmp_path, capsys):
    folder = tiny_folder(tmp_path / "model", num_hidden_layers=3)
    change_config(Path(folder), num_hidden_layers=2)
    models.load_model(folder)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "holds 9 weights that its config does not ask for, first model.layers.2.input_layernorm.weight" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
            "is quantised .gptq.: give its",
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "is quantised .bitsandbytes.",
        ),
        ({"num_attention_heads": 0}, "num_attention_heads|cannot load the Config"),
        ({"num_hidden_layers": 0}, "num_hidden_layers of its config is 0, not at least 1"),
        ({"hidden_size": "32"}, "hidden_size|cannot load the Config"),
        ({"rope_parameters": "none"}, "cannot load the"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(copy, changes, said):
    change_config(copy, **changes)
    with pytest.raises(StudyError, match=said) as caught:
        models.load_model(str(copy))
    assert len(str(caught.value).splitlines()) == 1


def test_projected_embeddings_are_refused(tmp_path):
    tiny_family("opt", word_embed_proj_dim=16).save_pretrained(tmp_path / "opt")
    with pytest.raises(StudyError, match="projects its embeddings to another size"):
        models.load_model(str(tmp_path / "opt"))


def test_a_model_of_text_and_pictures_names_its_language_model(tmp_path):
    config = Gemma3Config(text_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4})
    config.save_pretrained(tmp_path / "gemma3")
    with pytest.raises(
        StudyError, match="[(]gemma3[)] holds more than text: give its language model [(]gemma3_text[)]"
    ):
        models.load_config(str(tmp_path / "gemma3"))


@pytest.mark.parametrize(("name", "dtype"), models.DTYPES.items())
def test_the_dtype_is_the_one_asked_for(folder, name, dtype):
    loaded = models.load_model(folder, dtype=name, device="cpu")
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert torch.equal(loaded.model.rotary_emb.inv_freq, tiny_model().model.rotary_emb.inv_freq)


def test_unknown_dtype_names_the_known_ones(folder):
    with pytest.raises(StudyError, match="unknown dtype 'int8'; known: bfloat16, float16, float32"):
        models.load_model(folder, dtype="int8")


def test_a_tokenizer_gives_back_the_text_and_can_pad(folder):
    tokenizer = models.load_tokenizer(folder)
    text = "Déjà vu , and  two spaces ."
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert tokenizer.pad_token is not None


def test_a_tokenizer_without_padding_pads_with_its_end_token(copy):
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(copy)
    assert models.load_tokenizer(str(copy)).pad_token == "<eos>"


def test_a_folder_without_tokenizer_still_gives_its_model(tmp_path):
    folder = tiny_folder(tmp_path / "bare", tokenizer=False)
    assert models.load_model(folder).config.vocab_size == models.load_config(folder).vocab_size == 257
    with pytest.raises(StudyError, match="cannot load the Tokenizer of .*bare"):
        models.load_tokenizer(folder)


def test_loading_prints_nothing(folder, capfd):
    models.load_model(folder)
    models.load_tokenizer(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent", "absent", "a/b/c", "", "smollm2"])
def test_a_missing_folder_says_what_can_be_given(name):
    with pytest.raises(StudyError, match="give a bundled name .*smollm2-135m-instruct.* folder, or a hub id") as caught:
        models.load_model(name)
    assert repr(name) in str(caught.value)


def _delete_config(folder):
    (folder / "config.json").unlink()


def _break_config(folder):
    (folder / "config.json").write_text('{"model_type": ')


def _truncate_weights(folder):
    os.truncate(folder / "model.safetensors", 1000)


def _delete_weights(folder):
    (folder / "model.safetensors").unlink()


def _more_layers(folder):
    change_config(folder, num_hidden_layers=3)


def _other_width(folder):
    change_config(folder, intermediate_size=40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_delete_config, "Unrecognized model"),
        (_break_config, "not a valid JSON file"),
        (_truncate_weights, "cannot load the ModelForCausalLM"),
        (_delete_weights, "no file named model.safetensors"),
        (_more_layers, "do not fit its config: 9 missing, first model.layers.2.input_layernorm.weight"),
        (_other_width, "do not fit its config: 6 of another size, first model.layers.0.mlp.down_proj.weight"),
    ],
)
def test_a_damaged_folder_fails_in_one_line(copy, damage, message, capfd):
    damage(copy)
    with pytest.raises(StudyError, match=message) as caught:
        models.load_model(str(copy))
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", models.DTYPES)
def test_another_vocabulary_is_refused(tmp_path, tied, dtype):
    folder = tiny_folder(tmp_path / "tied", tie_word_embeddings=tied)
    change_config(Path(folder), vocab_size=300)
    with pytest.raises(StudyError, match="do not fit its config: [12] of another size, first"):
        models.load_model(folder, dtype=dtype)


def test_tied_weights_are_not_missing(tmp_path):
    folder = tiny_folder(tmp_path / "tied", tie_word_embeddings=True)
    model = models.load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("load", [models.load_config, models.load_model, models.load_tokenizer])
@pytest.mark.parametrize("kind", ["llama", "unheard-of"])
def test_code_in_a_folder_is_never_executed(copy, load, kind):
    (copy / "spy.py").write_text(SPY.format(kind=kind))
    code = {"AutoConfig": "spy.Config", "AutoModelForCausalLM": "spy.Model", "AutoTokenizer": ["spy.Config", None]}
    change_config(copy, model_type=kind, auto_map=code)
    if kind == "llama" or load is models.load_tokenizer:
        assert "spy" not in type(load(str(copy))).__module__
    else:
        with pytest.raises(StudyError, match="cannot load"):
            load(str(copy))
    assert not list(copy.rglob("executed"))


def test_pickled_weights_are_never_loaded(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(booby_trap(copy / "executed"))
    with pytest.raises(StudyError, match="are pickles .*model.safetensors"):
        models.load_model(str(copy))
    assert not (copy / "executed").exists()


def test_the_booby_trap_would_go_off(tmp_path):
    import pickle

    pickle.loads(booby_trap(tmp_path / "executed"))
    assert (tmp_path / "executed").exists()


# --- The hub -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [models.load_config, models.load_model, models.load_tokenizer])
def test_a_hub_id_without_a_hub_fails_at_once(monkeypatch, load):
    monkeypatch.setattr(models.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(models.constants, "ENDPOINT", closed_endpoint())
    begin = time.perf_counter()
    with pytest.raises(StudyError, match="'owner/absent' is not in the local cache and http://127.* not within reach"):
        load("owner/absent")
    assert time.perf_counter() - begin < 15  # the stock client retries for 23 s


def test_offline_no_address_is_even_tried(monkeypatch):
    monkeypatch.setattr(models.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(models.hub, "reachable", lambda endpoint: pytest.fail("asked the hub"))
    with pytest.raises(StudyError, match="not in the local cache"):
        models.load_model("owner/absent")


def in_process(code: str, **environment) -> subprocess.CompletedProcess:
    """Run ``code`` on its own, for libraries read their settings on import; HF_HUB_OFFLINE is not set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=kept | environment, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_a_cached_hub_model_loads_without_network(tmp_path, folder, variable):
    homes = {"HF_HUB_CACHE": "hub", "HF_HOME": ".", "XDG_CACHE_HOME": ".."}
    hub_cache(tmp_path / "huggingface", folder)
    home = tmp_path / "huggingface" / homes[variable]
    code = (
        "import time; from mpstudy.inputs import models, names; begin = time.perf_counter();"
        "model, tokenizer = models.load_model('owner/tiny'), models.load_tokenizer('owner/tiny');"
        "print(model.config.hidden_size, tokenizer('a').input_ids, names.source_digest('owner/tiny'));"
        "assert time.perf_counter() - begin < 15"
    )
    done = in_process(code, HF_ENDPOINT=closed_endpoint(), **{variable: str(home)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["32", str(byte_tokenizer()("a").input_ids), f"owner/tiny@{COMMIT}"]
    assert done.stderr == ""


def test_a_half_cached_model_without_a_hub_names_what_lacks(tmp_path, folder, monkeypatch):
    hub_cache(tmp_path, folder, ("config.json",))
    monkeypatch.setattr(models.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(models.constants, "ENDPOINT", closed_endpoint())
    assert models.load_config("owner/tiny").hidden_size == 32
    with pytest.raises(StudyError, match="'owner/tiny': .*no file named model.safetensors"):
        models.load_model("owner/tiny")


class Hub(BaseHTTPRequestHandler):
    """The few answers of the Hugging Face hub that a download needs, from the files of ``folder``."""

    folder: Path

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        place = self.folder / self.path.split("?")[0].rpartition("/")[2]
        found = "/resolve/" in self.path and place.is_file()
        body = place.read_bytes() if found else b"{}"
        self.send_response(200 if found or self.path == "/" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{place.name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Nothing: tests stay quiet."""


@pytest.mark.slow
@pytest.mark.parametrize("cached", [(), ("config.json",)])
@pytest.mark.parametrize("first", ["models.load_config", "models.constants.HF_HUB_OFFLINE = not models.fetch"])
def test_a_hub_model_is_fetched_from_the_hub(tmp_path, folder, cached, first):
    """A cache that holds the config only is what reading a model's config leaves behind. After ``fetch``, which returns
    nothing, the hub is not asked any more.
    """
    if cached:
        hub_cache(tmp_path, folder, cached)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"folder": Path(folder)}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    code = (
        "from mpstudy.inputs import models; from mpstudy.store import digests;"
        f"{first}('owner/tiny'); models.load_tokenizer('owner/tiny');"
        "print(digests.weights_digest(models.load_model('owner/tiny', device='cpu')))"
    )
    try:
        done = in_process(code, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path), HF_HUB_DISABLE_XET="1", NO_PROXY="*")
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digests.weights_digest(models.load_model(folder, device="cpu"))


# --- What stands for a model in fingerprints -----------------------------------------------------------------


def test_the_digest_of_a_folder_follows_its_content(copy, tmp_path):
    before = names.source_digest(str(copy))
    twin = shutil.copytree(copy, tmp_path / "twin")
    assert names.source_digest(str(twin)) == before
    (copy / "README.md").write_text("not part of the model")
    assert names.source_digest(str(copy)) == before
    change_config(copy, rms_norm_eps=1e-5)
    changed = names.source_digest(str(copy))
    assert changed != before
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert len({before, changed, names.source_digest(str(copy))}) == 3


def test_the_digest_of_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(StudyError, match="holds no .json or .safetensors file"):
        names.source_digest(str(tmp_path))


def test_the_digests_of_other_names(tmp_path, monkeypatch):
    monkeypatch.setattr(models.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    digests = {names.source_digest(name) for name in (*names.BUNDLED, "owner/tiny", "owner/other", "/no/folder")}
    assert len(digests) == 6 and {"owner/tiny@main", "/no/folder@main"} < digests


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_the_hub_cache_knows_a_model_by_its_config_or_tokenizer(tmp_path, folder, monkeypatch, file):
    monkeypatch.setattr(models.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = hub_cache(tmp_path, folder, (file,))
    assert names.hub_snapshot("owner/tiny") == snapshot
    assert names.source_digest("owner/tiny") == f"owner/tiny@{COMMIT}"
    (snapshot / file).unlink()
    assert names.hub_snapshot("owner/tiny") is None


def test_naming_a_model_imports_no_http_client():
    code = "import sys, mpstudy.inputs.names; print({'huggingface_hub', 'httpx2', 'torch'}.intersection(sys.modules))"
    assert in_process(code).stdout == "set()\n"


def test_another_family_loads_as_a_config(tmp_path):
    GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0).save_pretrained(tmp_path)
    assert models.load_config(str(tmp_path)).model_type == "gpt2"


# --- The bundled models ------------------------------------------------------------------------------------------


def test_an_optional_model_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("MPSTUDY_CACHE", str(tmp_path))
    with pytest.raises(StudyError, match=f"^.*`python -m mpstudy data --for {GEMMA}` fetches it$"):
        models.load_model(GEMMA)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_kind_of_a_bundled_model_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MPSTUDY_CACHE", str(tmp_path))
    assert [names.model_type(name) for name in names.BUNDLED] == ["llama", "llama", "gemma3_text"]


@pytest.fixture(scope="module")
def grouped():
    return models.load_model(GROUPED, device="cpu")


@pytest.mark.slow
def test_the_bundled_model_is_a_plain_llama(grouped, tmp_path):
    assert type(grouped) is LlamaForCausalLM and type(grouped.config) is LlamaConfig
    assert not hasattr(grouped.config, "quantization_config") and not hasattr(grouped, "hf_quantizer")
    assert {parameter.dtype for parameter in grouped.parameters()} == {torch.float32}
    shape = grouped.config
    assert (shape.hidden_size, shape.num_hidden_layers) == (576, 30)
    assert (shape.num_attention_heads, shape.num_key_value_heads, shape.tie_word_embeddings) == (9, 3, True)
    assert sum(parameter.numel() for parameter in grouped.parameters()) == 134_515_008
    grouped.save_pretrained(tmp_path)
    again = models.load_model(str(tmp_path), device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(grouped.parameters(), again.parameters()))


@pytest.mark.slow
def test_the_ungrouped_variant_is_the_same_function(grouped):
    twin = models.load_model(UNGROUPED, device="cpu")
    assert twin.config.num_key_value_heads == 9
    batch = tokens(2, 24, vocabulary=grouped.config.vocab_size)
    with torch.inference_mode():
        assert torch.equal(twin(batch).logits, grouped(batch).logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", [GROUPED, UNGROUPED])
def test_the_bundled_tokenizer_gives_back_the_text(name):
    tokenizer = models.load_tokenizer(name)
    text = "Fellow citizens , it's 1946: café\n\n  end  "
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) <= models.load_config(name).vocab_size == 49152


@pytest.mark.slow
def test_the_bundled_model_knows_its_language(grouped):
    tokenizer = models.load_tokenizer(GROUPED)
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    written = grouped.generate(prompt, max_new_tokens=1, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert tokenizer.decode(written[0, -1]).strip() == "Paris"


@pytest.fixture
def gemma():
    """The optional model, where it is here."""
    if not all(manifest.entries()[part].target.is_file() for part in names.BUNDLED[GEMMA].inputs):
        pytest.skip(f"`python -m mpstudy data --for {GEMMA}` has not been typed")
    return models.load_model(GEMMA, device="cpu")


@pytest.mark.slow
def test_the_optional_model_is_a_plain_gemma_and_needs_bos(gemma):
    assert type(gemma) is Gemma3ForCausalLM and not hasattr(gemma.config, "quantization_config")
    assert gemma.lm_head.weight is gemma.model.embed_tokens.weight
    assert sum(parameter.numel() for parameter in gemma.parameters()) == 268_098_176
    tokenizer = models.load_tokenizer(GEMMA)
    text = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid."
    with_bos, without = (
        perplexity(gemma, text_windows(tokenizer, text, window=20, bos=bos))["perplexity"] for bos in (None, False)
    )
    assert with_bos < 10 < without
