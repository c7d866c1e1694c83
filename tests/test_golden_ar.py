"""Agreement with the reference program: tokenizers, samplers and the AR."""

from __future__ import annotations

from typing import Any

import golden_data as golden
import pytest
import torch
from golden_data import (
    GENERATE_CONFIG,
    ar_dims,
    assert_close,
    generator_model,
    read_json,
    tensors,
)
from torch import Tensor

from mars5.ar import sampling
from mars5.ar.decode import generate_ids
from mars5.ar.model import CodecLM, KVCache
from mars5.config import InferenceConfig
from mars5.prompt import joint_vocabulary

TOKENIZER_CASES = read_json("tokenizers/cases.json")


@pytest.mark.parametrize("specials", [True, False])
def test_text_tokenizer_encodes(specials: bool) -> None:
    tokenizer = golden.text_tokenizer()
    key = "encode_allowed_special_all" if specials else "encode_allowed_special_none"
    for case in TOKENIZER_CASES["texttok"][key]:
        assert tokenizer.encode(case["text"], specials=specials) == case["ids"], case["text"]
        if "decoded" in case:
            assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_text_tokenizer_decodes_any_ids() -> None:
    for case in TOKENIZER_CASES["texttok"]["decode_only"]:
        assert golden.text_tokenizer().decode(case["ids"]) == case["decoded"]


def test_pattern_line_of_the_file_is_not_used() -> None:
    tokenizer = golden.text_tokenizer("texttok_altpattern.model")
    for case in TOKENIZER_CASES["texttok"]["altpattern_file"]["encode_allowed_special_all"]:
        assert tokenizer.encode(case["text"], specials=True) == case["ids"]


def test_speech_tokenizer() -> None:
    tokenizer = golden.speech_tokenizer()
    recorded = TOKENIZER_CASES["speechtok"]
    for case in recorded["encode"]:
        assert tokenizer.encode(case["codes"]) == case["ids"]
    for case in recorded["decode_int"]:
        codes = [code for code in case["decoded_int"] if isinstance(code, int)]
        assert tokenizer.decode(case["ids"]) == codes


def test_vocabulary_sizes() -> None:
    text, speech = golden.text_tokenizer(), golden.speech_tokenizer()
    derived = TOKENIZER_CASES["derived"]
    vocabulary = joint_vocabulary(text, speech)
    assert len(text) == TOKENIZER_CASES["texttok"]["vocab_size"]
    assert len(speech) == TOKENIZER_CASES["speechtok"]["vocab_size"]
    assert len(text) + len(speech) == derived["n_vocab"]
    assert vocabulary.end == derived["eos_id"]
    assert vocabulary.first_allowed == derived["effective_first_allowed_id"]


def _run_sampler(
    behaviour: str, logits: Tensor, previous: Tensor | None, p: dict[str, Any]
) -> Tensor:
    if behaviour == "frequency_presence_penalty":
        return sampling.penalise_repeats(
            logits, previous, p["alpha_frequency"], p["alpha_presence"], p["penalty_window"]
        )
    if behaviour == "early_eos_penalty":
        return sampling.penalise_early_end(
            logits,
            p["eos_index"],
            p["n_generated"],
            p["estimated_gen_length"],
            p["decay"],
            p["factor"],
        )
    if behaviour == "top_k_top_p":
        return sampling.top_k_top_p(logits, p["top_k"], p["top_p"], p.get("min_tokens", 1))
    if behaviour == "typical_p":
        return sampling.typical(logits, p["mass"])
    raise AssertionError(f"unknown behaviour {behaviour}")


@pytest.mark.parametrize("case", golden.cases("samplers.json"), ids=golden.ids)
def test_samplers(case: dict[str, Any]) -> None:
    data = tensors("samplers.safetensors")
    logits = data[case["logits"]].clone()
    previous = data[case["previous"]] if case.get("previous") else None
    if case["behaviour"] == "chain":
        found = _chain(logits, previous, case["params"])
    else:
        found = _run_sampler(case["behaviour"], logits, previous, case["params"])
    assert_close(found, data[case["case"]], 1e-6)
    assert torch.equal(logits, data[case["logits"]]), "the caller's logits were changed"


def _chain(logits: Tensor, previous: Tensor | None, p: dict[str, Any]) -> Tensor:
    assert previous is not None
    assert previous.shape[1] == p["n_generated"]
    cfg = InferenceConfig(
        temperature=p["temperature"],
        top_k=p["top_k"],
        top_p=p["top_p"],
        typical_p=p["mass"],
        freq_penalty=p["alpha_frequency"],
        presence_penalty=p["alpha_presence"],
        rep_penalty_window=p["penalty_window"],
        eos_penalty_decay=p["decay"],
        eos_penalty_factor=p["factor"],
    )
    vocabulary = sampling.Vocabulary(p["first_allowed_id"] + 1, p["eos_index"])
    inside = torch.arange(logits.shape[1]) < p["end_id"]  # beyond it are no ids in practice
    masked = logits.masked_fill(~inside, -torch.inf)
    return sampling.filtered_logits(masked, previous, p["estimated_gen_length"], vocabulary, cfg)


AR_CONFIG = read_json("ar/config.json")


def _ar_model(sliding_window: int) -> CodecLM:
    model = CodecLM(ar_dims(AR_CONFIG["constructor"], sliding_window))
    model.load_state_dict(tensors("ar/weights.safetensors"))
    return model.eval()


@pytest.mark.parametrize("case", golden.cases("ar/cases.json"), ids=golden.ids)
@torch.no_grad()
def test_ar_model(case: dict[str, Any]) -> None:
    data, name = tensors("ar/cases.safetensors"), case["case"]
    model = _ar_model(case.get("sliding_window", AR_CONFIG["default_sliding_window"]))
    assert model.dims.ff_dim == AR_CONFIG["hidden_dim"]
    speaker = None
    if case.get("has_spk_reference", True):
        speaker = model.speaker_vector(data[f"{name}.spk_reference"])
    if case["kind"] == "full":
        assert_close(model(data[f"{name}.x"], speaker), data[f"{name}.logits"])
    elif case["kind"] == "speaker_embedding":
        assert_close(speaker, data[f"{name}.embedding"])
    else:
        _check_cached(model, case, data, speaker)


def _check_cached(
    model: CodecLM, case: dict[str, Any], data: dict[str, Tensor], speaker: Tensor | None
) -> None:
    name, x, n0 = case["case"], data[f"{case['case']}.x"], case["prefill_tokens"]
    cache = KVCache(model.dims, case["cache_length"])
    cache.keys.fill_(torch.nan)  # slots never written must never be read
    cache.values.fill_(torch.nan)
    assert_close(model(x[:, :n0], speaker, cache), data[f"{name}.prefill_logits"])
    for step in range(case["steps"]):
        logits = model(x[:, n0 + step : n0 + step + 1], None, cache)
        assert_close(logits[0], data[f"{name}.step_logits"][step + 1 : step + 2])
    assert_close(model(x, speaker), data[f"{name}.nocache_logits"])


def _generate_config(args: dict[str, Any]) -> InferenceConfig:
    return InferenceConfig(
        temperature=args["temperature"],
        top_k=args["topk"],
        top_p=args["top_p"],
        typical_p=args["typical_p"],
        freq_penalty=args["alpha_frequency"],
        presence_penalty=args["alpha_presence"],
        rep_penalty_window=args["penalty_window"],
        eos_penalty_factor=args["eos_penalty_factor"],
        eos_penalty_decay=args["eos_penalty_decay"],
        generate_max_len_override=args["max_len"],
        use_kv_cache=args["use_kv_cache"],
    )


@pytest.mark.parametrize("case", golden.cases("ar_generate/cases.json"), ids=golden.ids)
def test_ar_generation(case: dict[str, Any]) -> None:
    model = generator_model(case["output_row_override"], case["sliding_window"])
    reference = tensors("ar_generate/inputs.safetensors")["spk_reference"][None]
    vocabulary = sampling.Vocabulary(GENERATE_CONFIG["n_text_tokens"], GENERATE_CONFIG["eos_id"])
    prompt, args = case["prompt_ids"], case["args"]
    with torch.no_grad():
        speaker = model.speaker_vector(reference)
    torch.manual_seed(case["seed"])
    drawn = list(
        generate_ids(
            model,
            torch.tensor([prompt]),
            speaker,
            vocabulary,
            _generate_config(args),
            args["n_phones_gen"],
        )
    )
    assert len(drawn) == case["n_sampling_steps"]
    ended = bool(drawn) and drawn[-1] == vocabulary.end
    assert ended == (case["ended_by"] == "eos")
    assert prompt + (drawn[:-1] if ended else drawn) == case["output_ids"]


@pytest.mark.parametrize(
    "case", [c for c in golden.cases("ar_generate/cases.json") if c["traced"]], ids=golden.ids
)
def test_ar_generation_probabilities(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The probability vectors of every draw, as recorded, not only what was drawn."""
    seen: list[Tensor] = []
    for user in ("decode", "sampler"):
        monkeypatch.setattr(
            f"mars5.ar.{user}.draw", lambda p, n: (seen.append(p[0]), sampling.draw(p, n))[1]
        )
    test_ar_generation(case)
    trace, name = tensors("ar_generate/trace.safetensors"), case["case"]
    offsets = trace[f"{name}.offsets"].tolist()
    assert len(seen) == len(offsets) - 1
    for found, start, stop in zip(seen, offsets[:-1], offsets[1:], strict=True):
        wanted = torch.zeros_like(found)
        wanted[trace[f"{name}.ids"][start:stop]] = trace[f"{name}.probs"][start:stop]
        assert_close(found, wanted, 1e-4)
