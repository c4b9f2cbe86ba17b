"""Perplexity is what its definition says, in fp32, whatever the batches; costs are counted once."""

import math
import sys

import numpy as np
import pytest
import torch
from helpers.families import tiny_family
from helpers.tiny import BYTES, byte_tokenizer, cast, pruned_model, tiny_model, tokens
from safetensors.torch import save_file

from mpstudy.errors import StudyError
from mpstudy.evaluation import cost, generate, perplexity
from mpstudy.memory import peak_of
from mpstudy.structure.families import FAMILIES


def window_losses(model, windows: torch.Tensor) -> np.ndarray:
    """Mean negative log-probability per window in nats, by hand from the model's logits in float64."""
    with torch.no_grad():
        logits = model(input_ids=windows).logits.double().numpy()
    losses = []
    for scores, ids in zip(logits, windows.tolist()):
        total = 0.0
        for position, following in enumerate(ids[1:]):
            row = scores[position]
            total += math.log(sum(math.exp(value - row.max()) for value in row)) + row.max() - row[following]
        losses.append(total / (len(ids) - 1))
    return np.array(losses)


def test_equal_logits_give_the_vocabulary_size():
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    result = perplexity.perplexity(model, tokens(3, 9))
    assert result["perplexity"] == pytest.approx(BYTES, rel=1e-6)
    assert result["stderr"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("make", [tiny_model, pruned_model])
def test_it_is_the_exponential_of_the_mean_loss(make):
    model, windows = make(), tokens(5, 11)
    losses = window_losses(model, windows)
    result = perplexity.perplexity(model, windows)
    assert result["nll"] == pytest.approx(losses.mean(), rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-5)
    assert result["stderr"] == pytest.approx(math.exp(losses.mean()) * losses.std(ddof=1) / math.sqrt(5), rel=1e-4)
    assert losses.std() > 0.01


def test_it_agrees_with_a_model_in_double_precision():
    windows = tokens(4, 10)
    exact = window_losses(tiny_model().double(), windows).mean()
    assert perplexity.perplexity(tiny_model(), windows)["nll"] == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(
    ("window", "vocabulary", "windows"),
    [(2, 100, 8), (128, 49152, 8), (256, 49152, 5), (256, 128256, 2), (1024, 49152, 1), (2048, 128256, 1)],
)
def test_long_windows_and_large_vocabularies_make_small_batches(window, vocabulary, windows):
    assert perplexity.at_once(window, vocabulary) == windows
    assert windows == 1 or windows * window * vocabulary * 4 < 0.3e9  # bytes of fp32


@pytest.mark.parametrize(("windows", "length", "passes"), [(9, 8, [8, 1]), (3, 1025, [1, 1, 1])])
def test_batches_are_as_large_as_memory_allows(windows, length, passes, monkeypatch):
    model, sizes = tiny_model(), []
    monkeypatch.setattr(perplexity, "LOGITS", 1025 * model.config.vocab_size)
    model.register_forward_pre_hook(lambda _, __, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True)
    perplexity.perplexity(model, tokens(windows, length))
    assert sizes == passes


@pytest.mark.parametrize("tokens_at_once", [1, 4, 11])
def test_losses_of_pieces_are_those_of_the_whole(tokens_at_once, monkeypatch):
    model, windows = tiny_model(), tokens(3, 12)
    whole = perplexity.perplexity(model, windows)
    monkeypatch.setattr(perplexity, "PIECE", tokens_at_once * model.config.vocab_size)
    assert perplexity.perplexity(model, windows) == whole


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_losses_of_logits_in_pieces_are_those_of_the_whole(kind, monkeypatch):
    """Softcapping, scaling and tied heads are the family's own also where its layers run once and its head often."""
    model, windows = tiny_family(kind), tokens(3, 12)
    whole = perplexity.perplexity(model, windows)
    monkeypatch.setattr(perplexity, "WHOLE", 0)
    monkeypatch.setattr(perplexity, "PIECE", 4 * model.config.vocab_size)
    runs = []
    model.get_decoder().register_forward_hook(lambda *_: runs.append(1))
    found = perplexity.perplexity(model, windows)
    assert found["losses"] == pytest.approx(whole["losses"], rel=1e-6)
    assert found["accuracy"] == whole["accuracy"]
    assert len(runs) == 3 * (1 + 3)  # a window's layers once, then their output for each of three pieces
    assert torch.equal(model(windows).logits, tiny_family(kind)(windows).logits)  # nothing is left behind


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("kind", "window"), [("llama", 2048), ("gemma2", 2048), ("granite", 2048)])
def test_a_long_window_of_a_large_vocabulary_takes_little_memory(kind, window):
    model = tiny_family(kind, vocab_size=128256, max_position_embeddings=2048)
    windows = tokens(2, window, vocabulary=128256)
    perplexity.perplexity(model, windows[:, :8])  # what the first use of a library takes is not of a window
    _, peak = peak_of(lambda: perplexity.perplexity(model, windows), "cpu")
    assert 0.1e9 < peak < 1.3e9  # all logits of 2048 tokens are 1.05 GB


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_a_half_precision_model_are_in_fp32(dtype):
    model, windows = cast(tiny_model(), dtype), tokens(4, 10)
    nll = perplexity.perplexity(model, windows)["nll"]
    assert nll == pytest.approx(window_losses(model, windows).mean(), rel=1e-6)
    assert abs(float(torch.tensor(nll).to(dtype)) - nll) > 1e-5


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_does_not_matter(batch_size):
    model, windows = tiny_model(), tokens(5, 11)
    expected = perplexity.perplexity(model, windows)
    found = perplexity.perplexity(model, windows, batch_size=batch_size)
    assert found.pop("losses") == pytest.approx(losses := expected.pop("losses"), rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(losses) == 5 and sum(losses) / 5 == pytest.approx(expected["nll"])


@pytest.mark.parametrize(("count", "window"), [(1, 2), (3, 7), (9, 16)])
def test_the_first_token_of_a_window_is_not_predicted(count, window):
    result = perplexity.perplexity(tiny_model(), tokens(count, window))
    assert (result["tokens"], result["window"]) == (count * (window - 1), window)


def test_accuracy_counts_the_tokens_that_are_most_likely():
    model, windows = tiny_model(), tokens(4, 16)
    with torch.no_grad():
        best = model(windows).logits[:, :-1].argmax(-1)
    windows[:, 1::2] = best[:, ::2]  # so that some of them are, those of the unchanged part before all
    hits = model(windows).logits[:, :-1].argmax(-1) == windows[:, 1:]
    assert 0 < hits.float().mean() < 1
    assert perplexity.perplexity(model, windows)["accuracy"] == pytest.approx(hits.float().mean().item())


def constant(*logits: float):
    """A model whose logits are those of the first tokens, and 0 for all others, whatever it reads."""
    model = tiny_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head = torch.nn.Linear(model.config.hidden_size, BYTES)
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()[: len(logits)] = torch.tensor(logits)
    return model


def test_divergence_by_hand():
    """Between equal chances and twice the chance for one of N tokens."""
    windows, log = tokens(3, 9), math.log
    found = perplexity.divergence(constant(0.0), constant(log(2)), windows)
    assert found["kl"] == pytest.approx(log((BYTES + 1) / BYTES) - log(2) / BYTES, abs=1e-6)
    back = perplexity.divergence(constant(log(2)), constant(0.0), windows)
    assert back["kl"] == pytest.approx(2 / (BYTES + 1) * log(2) - log((BYTES + 1) / BYTES), abs=1e-6)
    assert found["same_token"] == 1 and found["stderr"] < 1e-6
    assert perplexity.divergence(constant(1.0), constant(0.0, 1.0), windows)["same_token"] == 0


def test_a_model_does_not_diverge_from_itself():
    found = perplexity.divergence(tiny_model(), tiny_model(), tokens())
    assert found["kl"] == pytest.approx(0, abs=1e-7) and found["same_token"] == 1


def test_divergence_does_not_depend_on_the_batch_size():
    models, windows = (tiny_model(), tiny_model(seed=1)), tokens(5, 12)
    parts = [perplexity.divergence(*models, windows, batch_size=size) for size in (1, 5)]
    assert parts[0] == pytest.approx(parts[1], rel=1e-4) and parts[0]["kl"] > 0.01 and parts[0]["stderr"] > 0


def test_divergence_of_unusable_weights_is_an_error():
    broken = constant(float("nan"))
    with pytest.raises(StudyError, match="the divergence of the two models is not finite"):
        perplexity.divergence(tiny_model(), broken, tokens())


def test_one_window_has_no_standard_error():
    assert math.isnan(perplexity.perplexity(tiny_model(), tokens(1, 8))["stderr"])


def test_nothing_about_the_model_changes():
    model = tiny_model().train()
    model.requires_grad_(True)
    perplexity.perplexity(model, tokens(2, 8))
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_unusable_weights_are_an_error(bad):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[3] = bad
    with pytest.raises(StudyError, match="the evaluation loss is .*weights are not usable"):
        perplexity.perplexity(model, tokens())


def test_a_loss_beyond_any_perplexity_is_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    with pytest.raises(StudyError, match="the evaluation loss is .*weights are not usable"):
        perplexity.perplexity(model, tokens())


def test_windows_of_one_token_are_an_error():
    with pytest.raises(StudyError, match="at least 2 tokens"):
        perplexity.perplexity(tiny_model(), tokens(4, 1))


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_once(tied):
    block = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 24 + 2 * 32
    expected = 2 * block + 32 + BYTES * 32 * (1 if tied else 2)
    assert cost.parameter_count(tiny_model(tie_word_embeddings=tied)) == expected


def test_removed_units_are_not_counted():
    heads, channels = 2 - 1, (24 - 13) + (24 - 11)  # what pruned_model removes: one KV group a layer, 24 channels
    group, channel = 2 * 8 * 32 + 2 * 8 * 32 + 32 * 2 * 8, 3 * 32
    removed = cost.parameter_count(tiny_model()) - cost.parameter_count(pruned_model())
    assert removed == 2 * heads * group + channels * channel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_file(tmp_path, dtype):
    model = cast(tiny_model(), dtype)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    size, stored = cost.weight_bytes(model), (tmp_path / "weights.safetensors").stat().st_size
    assert size <= stored < size + 5000


def test_latency_has_a_row_for_each_model_and_phase():
    rows = cost.latency({"dense": tiny_model(), "pruned": pruned_model()}, prompt=6, new_tokens=3, repeats=3)
    cases = [("dense", "prefill", 6), ("dense", "decode", 3), ("pruned", "prefill", 6), ("pruned", "decode", 3)]
    assert [(row["model"], row["phase"], row["tokens"]) for row in rows] == cases
    for row in rows:
        assert 0 < row["low_s"] <= row["median_s"] <= row["high_s"] and row["repeats"] == 3


def test_models_take_turns_after_a_warm_up(monkeypatch):
    asked, seconds = [], iter([9, 9, 1, 10, 2, 20, 4, 40])  # the first of each model is the warm-up

    def timed(model, prompt, new_tokens):
        asked.append(model)
        value = next(seconds)
        return value, 2 * value

    monkeypatch.setattr(cost, "_one_latency", timed)
    rows = cost.latency({"a": "A", "b": "B"}, repeats=3)
    assert asked == ["A", "B"] * 4
    assert [(row["low_s"], row["median_s"], row["high_s"]) for row in rows] == [
        (1, 2, 4), (2, 4, 8), (10, 20, 40), (20, 40, 80),
    ]  # fmt: skip


def test_one_repeat_has_no_interval():
    (row, _) = cost.latency({"dense": tiny_model()}, prompt=4, new_tokens=2, repeats=1)
    assert row["median_s"] > 0 and math.isnan(row["low_s"]) and math.isnan(row["high_s"])


def test_decoding_goes_through_the_cache(monkeypatch):
    model, lengths = tiny_model(), []
    forward = model.forward

    def spied(*, input_ids, past_key_values=None, **more):
        lengths.append((input_ids.shape[1], past_key_values.get_seq_length() if past_key_values else 0))
        return forward(input_ids=input_ids, past_key_values=past_key_values, **more)

    monkeypatch.setattr(model, "forward", spied)
    cost._one_latency(model, 6, 3)
    assert lengths == [(6, 0), (1, 6), (1, 7), (1, 8)]


# --- What a model does -------------------------------------------------------------------------------------------


def macs_by_hand(model, tokens: int) -> int:
    """Products of the projections, of attention (queries with keys, weights with values) and of the output head."""
    total = tokens * model.config.hidden_size * model.config.vocab_size
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        linear = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        linear += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        total += tokens * sum(part.weight.numel() for part in linear)
        total += 2 * tokens**2 * attention.q_proj.weight.shape[0]
    return total


@pytest.mark.parametrize("model", [tiny_model(), tiny_model(tie_word_embeddings=True), pruned_model()])
@pytest.mark.parametrize("tokens", [1, 7])
def test_macs_are_those_counted_by_hand(model, tokens):
    assert cost.macs(model, tokens) == macs_by_hand(model, tokens)


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read from /proc")
def test_peak_memory_holds_at_least_the_weights():
    model = tiny_model(intermediate_size=20_000)
    channels = 4 * 200 * 20_000
    for _ in range(2):  # again, when freed memory could be used
        peak = cost.peak_memory(model, prompt=200, new_tokens=2)
        assert cost.weight_bytes(model) + channels < peak < cost.weight_bytes(model) + 200e6


def test_generation_continues_greedily_and_without_the_prompt():
    model, tokenizer = tiny_model(), byte_tokenizer()
    texts = generate.generate(model, tokenizer, ["One", "Another"], new_tokens=5)
    for prompt, text in zip(["One", "Another"], texts):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        for _ in range(5):
            with torch.no_grad():
                following = model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)
            if following.item() == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, following], dim=1)
        assert text == tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True).strip()
