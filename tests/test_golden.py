"""Agreement with everything recorded from the reference program.

`MARS5_GOLDEN_DIR` names another recording of the same layout. Integers and seeded draws are equal;
floats agree within 1e-4 relative, 1e-5 of the largest value where one pass is compared.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import golden_data as golden
import pytest
import torch
from golden_data import ROOT, ar_dims, nar_dims, read_json, tensors
from torch import Tensor

from mars5.ar import sampling
from mars5.ar.decode import generate_ids
from mars5.ar.model import CodecLM, KVCache
from mars5.audio import trim_interval, trim_silence
from mars5.checkpoint import convert, load_pair, read_checkpoint
from mars5.config import InferenceConfig, ModelConfig
from mars5.engine import Engine
from mars5.layers import SinePositions, timestep_embedding
from mars5.nar import diffusion
from mars5.nar.decode import Estimator, Known, Resampling, denoise_exact, visiting_order
from mars5.nar.model import ResidualTransformer
from mars5.prompt import build_prompt, joint_vocabulary
from mars5.tts import Mars5TTS
from mars5.vocoder import Vocoder, VocoderDims


def assert_close(found: Tensor, wanted: Tensor, relative: float = 1e-5) -> None:
    """Equal infinities; else within `relative` of the largest recorded value."""
    assert found.shape == wanted.shape
    finite = wanted.isfinite()
    assert torch.equal(found.isfinite(), finite)
    assert torch.equal(found[~finite], wanted[~finite])
    scale = max(wanted[finite].abs().max().item(), 1.0) if finite.any() else 1.0
    assert (found[finite] - wanted[finite]).abs().max().item() <= relative * scale


# ---------------------------------------------------------------- tokenizers

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


# ---------------------------------------------------------------- samplers


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


# ---------------------------------------------------------------- AR

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


# ---------------------------------------------------------------- AR generation

GENERATE_CONFIG = read_json("ar_generate/config.json")


def _generator_model(override: dict[str, Any] | None, sliding_window: int = 3000) -> CodecLM:
    model = CodecLM(ar_dims(GENERATE_CONFIG["constructor"], sliding_window))
    weights = dict(tensors("ar_generate/weights.safetensors"))
    if override is not None:
        key = override["tensor"].removeprefix("override.")
        rows = weights["ar.output.weight"].clone()
        rows[override["row"]] = tensors("ar_generate/inputs.safetensors")[f"override.{key}"]
        weights["ar.output.weight"] = rows
    model.load_state_dict(weights)
    return model.eval()


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
    model = _generator_model(case["output_row_override"], case["sliding_window"])
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


# ---------------------------------------------------------------- NAR

NAR_CONFIG = read_json("nar/config.json")


def _nar_model() -> ResidualTransformer:
    model = ResidualTransformer(nar_dims(NAR_CONFIG["constructor"]))
    assert model.dims.ff_dim == NAR_CONFIG["dim_ff"]
    model.load_state_dict(tensors("nar/weights.safetensors"))
    return model.eval()


@pytest.mark.parametrize("case", golden.cases("nar/cases.json"), ids=golden.ids)
@torch.no_grad()
def test_nar_model(case: dict[str, Any]) -> None:
    data, name, model = tensors("nar/cases.safetensors"), case["case"], _nar_model()
    given = case.get("inputs", name)
    x = data[f"{given}.x"]
    if case["drop_cond"]:
        speaker = model.no_speaker_vector(len(x))
    else:
        speaker = model.speaker_vector(data[f"{given}.c_codes"], data[f"{given}.c_codes_length"])
    visible = ~data[f"{given}.x_padding_mask"]
    text, lengths = data[f"{given}.c_text"], data[f"{given}.c_texts_length"]
    logits = model(text, lengths, speaker, x, torch.tensor(case["t"]), visible)
    logits = logits.transpose(2, 3)  # recorded with the codebooks last
    if name in data:
        assert_close(logits, data[name])
    else:
        assert torch.equal(logits.argmax(2), data[f"{name}.argmax"])
        assert_close(logits.logsumexp(2), data[f"{name}.logsumexp"])
        assert_close(logits[:, :1], data[f"{name}.first_position"])
        assert_close(logits[:, -1:], data[f"{name}.last_position"])


@torch.no_grad()
def test_nar_speaker_vector() -> None:
    data = tensors("nar/cases.safetensors")
    found = _nar_model().speaker_vector(data["spk.c_codes"], data["spk.c_codes_length"])
    assert_close(found, data["spk.embedding"])


@pytest.mark.parametrize("case", golden.cases("nar/embeddings.json"), ids=golden.ids)
@torch.no_grad()
def test_embeddings(case: dict[str, Any]) -> None:
    data, name = tensors("nar/embeddings.safetensors"), case["case"]
    if "timesteps" in case:
        dtype = getattr(torch, case["dtype"])
        found = timestep_embedding(torch.tensor(case["timesteps"]), case["dim"], dtype)
        assert found.dtype == data[name].dtype
        assert_close(found.float(), data[name].float(), 2e-5)
        return
    positions = SinePositions()
    positions.alpha.fill_(case["alpha"])
    if "rows" in case:
        found = positions(torch.zeros(1, max(case["rows"]) + 1, case["dim"]))[0, case["rows"]]
        assert_close(found, data[f"{name}.rows"], 1e-4)
    else:
        assert_close(positions(data[f"{name}.x"]), data[f"{name}.y"])


# ---------------------------------------------------------------- diffusion


def test_schedule_tables() -> None:
    data = tensors("diffusion/tables.safetensors")
    for steps in sorted({int(key.split(".")[0][1:]) for key in data}):
        schedule = diffusion.cosine_schedule(steps)
        for table, found in vars(schedule).items():
            assert torch.equal(found, data[f"T{steps}.{table}"]), (steps, table)


@pytest.mark.parametrize("case", golden.cases("diffusion/functions.json"), ids=golden.ids)
def test_diffusion_functions(case: dict[str, Any]) -> None:
    data, name = tensors("diffusion/functions.safetensors"), case["case"]
    inputs = {
        key.removeprefix(f"{name}."): v for key, v in data.items() if key.startswith(f"{name}.")
    }
    behaviours = case["behaviours"]
    if "log_sample_categorical" in behaviours:
        uniform = inputs["uniform"]
        if "seed" in case:
            generator = torch.Generator().manual_seed(case["seed"])
            assert torch.equal(diffusion.uniforms(tuple(uniform.shape), generator), uniform)
        assert torch.equal(diffusion.sample(inputs["logprobs"], uniform), inputs["out"])
    elif name == "onehot_dim1":
        found = diffusion.log_onehot(inputs["x"], case["num_classes"]).transpose(1, 2)
        assert_close(found, inputs["out"], 1e-6)
    elif behaviours == ["q_sample"]:
        schedule = diffusion.cosine_schedule(case["T"])
        noised = diffusion.q_pred(inputs["log_x0"], int(inputs["t"]), schedule)
        uniform = diffusion.uniforms(
            tuple(noised.shape), torch.Generator().manual_seed(case["seed"])
        )
        assert torch.equal(diffusion.sample(noised, uniform), inputs["out"])
    elif "c" in case:
        _check_scaled(case, inputs)
    else:
        _check_kernels(case, inputs)


def _check_scaled(case: dict[str, Any], inputs: dict[str, Tensor]) -> None:
    schedule = diffusion.cosine_schedule(case["T"])
    log_x = diffusion.log_onehot(inputs["xt"], case["num_classes"])
    found = diffusion.q_pred_one_step_scaled(
        log_x, int(inputs["t"]), schedule, case["c"], case["jump_len"], log_x.ndim - 2
    )
    assert_close(found, inputs["out"])


def _check_kernels(case: dict[str, Any], inputs: dict[str, Tensor]) -> None:
    schedule, k = diffusion.cosine_schedule(case["T"]), case["num_classes"]
    dtype = getattr(torch, case.get("dtype", "float32"))
    for row, t in enumerate(inputs["t"].tolist()):
        log_xt = diffusion.log_onehot(inputs["xt"][row], k, dtype)
        kernels = {
            "log_onehot_xt": lambda log_xt=log_xt: log_xt,
            "q_pred_one_timestep": lambda log_xt=log_xt, t=t: diffusion.q_pred_one_step(
                log_xt, t, schedule
            ),
        }
        if "x0" in inputs:
            log_x0 = diffusion.log_onehot(inputs["x0"][row], k)
            predicted = inputs.get("log_x0_pred", inputs["x0"][..., None].float())[row]
            kernels |= {
                "log_onehot_x0": lambda log_x0=log_x0: log_x0,
                "q_pred": lambda log_x0=log_x0, t=t: diffusion.q_pred(log_x0, t, schedule),
                "q_posterior": lambda a=log_x0, b=log_xt, t=t: diffusion.posterior(
                    a, b, t, schedule
                ),
                "p_pred": lambda a=predicted, b=log_xt, t=t: diffusion.posterior(a, b, t, schedule),
            }
        compared = [key for key in kernels if key in inputs]
        assert compared
        for key in compared:
            found, wanted = kernels[key](), inputs[key][row]
            assert found.dtype == wanted.dtype
            assert_close(found.float(), wanted.float(), 1e-3 if dtype == torch.half else 1e-5)


@pytest.mark.parametrize("case", golden.cases("diffusion/schedules.json"))
def test_visiting_order(case: dict[str, Any]) -> None:
    found = visiting_order(case["T"], case["jump_len"], case["jump_n_sample"])
    assert found == case["times"]


# ---------------------------------------------------------------- NAR sampling


@pytest.mark.parametrize("case", golden.cases("nar_sample/cases.json"), ids=golden.ids)
def test_nar_sampling(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = tensors("nar_sample/inputs.safetensors")
    inputs = {k: data[f"{case['inputs']}.{k}"] for k in (
        "c_text", "c_texts_length", "c_codes", "c_codes_length", "x", "x_padding_mask"
    )}  # fmt: skip
    settings, model = case["dsh"], _nar_model()
    reference = inputs["c_codes"] if settings["deep_clone"] else None
    known = Known.from_coarse(inputs["x"][..., 0], reference)
    visible = torch.ones(known.mask.shape[:2], dtype=torch.bool)
    visible[:, -inputs["x"].shape[1] :] = ~inputs["x_padding_mask"]
    with torch.no_grad():
        speaker = model.speaker_vector(inputs["c_codes"], inputs["c_codes_length"])
    estimator = Estimator(
        model,
        inputs["c_text"],
        inputs["c_texts_length"],
        speaker,
        settings["guidance_w"],
        settings["x_0_temp"],
        visible,
    )
    entered: list[tuple[Tensor, int]] = []
    original = Estimator.__call__
    monkeypatch.setattr(
        Estimator, "__call__", lambda self, x, t: (entered.append((x, t)), original(self, x, t))[1]
    )
    resampling = Resampling(
        settings["jump_len"],
        settings["jump_n_sample"],
        settings["enable_kevin_scaled_inference"],
        getattr(torch, case["dtype"]),
    )
    torch.manual_seed(case["seed"])
    override = settings["q0_override_steps"] if case["retain_quant0"] else case["T"]
    *_, codes = denoise_exact(
        estimator,
        known,
        diffusion.cosine_schedule(case["T"]),
        q0_override_steps=override,
        resampling=resampling,
        allow_padding=True,
    )
    wanted = tensors("nar_sample/outputs.safetensors")[case["case"]]
    assert torch.equal(codes[:, -wanted.shape[1] :], wanted)
    assert len(entered) == case["n_conditional_model_calls"]
    if case["traced"]:
        trace = tensors("nar_sample/trace.safetensors")
        assert [t for _, t in entered] == trace[f"{case['case']}.t"].tolist()
        found = torch.cat([x for x, _ in entered])
        assert torch.equal(found, trace[f"{case['case']}.x"].long())


# ---------------------------------------------------------------- trimming


@pytest.mark.parametrize(
    "case", golden.cases("trim/cases.json"), ids=lambda c: f"{c['signal']}-{c['top_db']}"
)
def test_trim(case: dict[str, Any]) -> None:
    signal = tensors("trim/signals.safetensors")[case["signal"]]
    assert trim_interval(signal, case["top_db"]) == (case["start"], case["end"])
    assert list(trim_silence(signal, case["top_db"]).shape) == case["output_shape"]


# ---------------------------------------------------------------- vocoder

VOCOS_CONFIG = read_json("vocos/config.json")


def _vocoder() -> Vocoder:
    backbone, head = VOCOS_CONFIG["backbone"], VOCOS_CONFIG["head"]
    rows, width = VOCOS_CONFIG["codebook_shape"]
    dims = VocoderDims(
        channels=backbone["input_channels"],
        dim=backbone["dim"],
        ff_dim=backbone["intermediate_dim"],
        n_layers=backbone["num_layers"],
        n_fft=head["n_fft"],
        hop=head["hop_length"],
        n_bandwidths=backbone["adanorm_num_embeddings"],
    )
    vocoder = Vocoder(dims, rows)
    i, j = torch.arange(rows)[:, None], torch.arange(width)[None]
    table = (((131 * i + 31 * j + (i * j) % 97) % 257 - 128) / 128).float()
    vocoder.load_state_dict({**tensors("vocos/weights.safetensors"), "table": table})
    return vocoder.eval()


@pytest.mark.parametrize("case", golden.cases("vocos/cases.json"), ids=golden.ids)
@torch.no_grad()
def test_vocoder(case: dict[str, Any]) -> None:
    data, name, vocoder = tensors("vocos/cases.safetensors"), case["case"], _vocoder()
    features = vocoder.features(data[f"{name}.codes"][None])
    assert_close(features, data[f"{name}.features"])
    assert_close(vocoder(data[f"{name}.codes"][None]), data[f"{name}.audio"])
    prefix = f"{name}.audio_bandwidth_id_"
    for key in (key for key in data if key.startswith(prefix)):
        bandwidth = int(key.removeprefix(prefix))
        assert_close(vocoder.synthesise(features, bandwidth), data[key])


def test_trim_of_vocoded_audio() -> None:
    wanted = tuple(read_json("vocos/cases.json")["trim_of_a_top_db_27"])
    assert trim_interval(tensors("vocos/cases.safetensors")["a.audio"][0], 27) == wanted


# ---------------------------------------------------------------- checkpoints


def _checkpoint_config() -> ModelConfig:
    recorded = read_json("checkpoint/config.json")
    return ModelConfig(ar_dims(recorded["ar_constructor"]), nar_dims(recorded["nar_constructor"]))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@torch.no_grad()
def test_checkpoints(suffix: str) -> None:
    folder = ROOT / "checkpoint"
    pair = load_pair(
        folder / f"mars5_ar.{suffix}", folder / f"mars5_nar.{suffix}", config=_checkpoint_config()
    )
    data = tensors("checkpoint/expected.safetensors")
    speaker = pair.ar.speaker_vector(data["spk_reference"])
    assert_close(pair.ar(data["x"], speaker), data["ar_logits"])
    speaker = pair.nar.speaker_vector(data["c_codes"], data["c_codes_length"])
    logits = pair.nar(
        data["c_text"],
        data["c_texts_length"],
        speaker,
        data["nar_x"],
        data["t"],
        ~data["x_padding_mask"],
    )
    assert_close(logits.transpose(2, 3), data["nar_logits"])
    assert len(pair.text_tokenizer) + 1 == pair.config.nar.n_text_vocab


def test_full_size_names_and_shapes() -> None:
    """Every parameter of the full-size models has its published name and shape."""
    manifest = read_json("checkpoint/full_size_manifest.json")
    n_text, n_speech = 2000, 6000
    config = ModelConfig.published(n_text, n_speech)
    symbols = {"n_vocab": n_text + n_speech, "n_text_vocab": n_text + 1}
    with torch.device("meta"):
        models = {"ar": CodecLM(config.ar), "nar": ResidualTransformer(config.nar)}
    for kind, model in models.items():
        wanted = {
            e["name"]: [symbols.get(s, s) for s in e["shape"]] for e in manifest[kind]["entries"]
        }
        assert {name: list(p.shape) for name, p in model.state_dict().items()} == wanted


def test_converted_checkpoint_is_the_same(tmp_path: Any) -> None:
    folder = ROOT / "checkpoint"
    convert(folder / "mars5_ar.pt", tmp_path / "ar.safetensors")
    wanted, found = (
        read_checkpoint(p) for p in (folder / "mars5_ar.safetensors", tmp_path / "ar.safetensors")
    )
    assert found.weights.keys() == wanted.weights.keys()
    assert all(torch.equal(found.weights[name], wanted.weights[name]) for name in wanted.weights)


# ---------------------------------------------------------------- end to end

TTS = read_json("tts/cases.json")


class _StubCodec:
    """Gives the recorded codes for any audio, and remembers the audio."""

    name, frame_rate = "encodec", 75.0

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes.transpose(1, 2)  # recorded as (1, Q, frames)
        self.waves: list[Tensor] = []

    def encode(self, wave: Tensor) -> Tensor:
        self.waves.append(wave)
        return self.codes


class _StubVocoder(torch.nn.Module):
    """Remembers the codes it was given and makes a sound that is not trimmed."""

    def forward(self, codes: Tensor) -> Tensor:
        return torch.ones(1, 320 * codes.shape[1])


def _system(case: dict[str, Any]) -> Mars5TTS:
    nar_dimensions = nar_dims(NAR_CONFIG["constructor"], case["default_T"])
    nar = ResidualTransformer(nar_dimensions)
    nar.load_state_dict(tensors("nar/weights.safetensors"))
    engine = Engine(
        _generator_model(case["output_row_override"]),
        nar.eval(),
        golden.text_tokenizer(),
        golden.speech_tokenizer(),
        _StubCodec(tensors("tts/inputs.safetensors")[f"codes.{case['reference_codes']}"]),
        _StubVocoder(),
        ModelConfig(ar_dims(GENERATE_CONFIG["constructor"]), nar_dimensions),
    )
    return Mars5TTS(engine)


def _reference(case: dict[str, Any]) -> Tensor:
    if case["audio"] == "long":  # zeros were recorded; silence is refused here
        return torch.sin(torch.arange(case["codec_input_shape"][-1]) / 20)
    return tensors("tts/inputs.safetensors")[f"audio.{case['audio']}"]


PLAIN_TTS = [c for c in TTS["cases"] if "<|" not in c["text"]]  # the others: see below


@pytest.mark.parametrize("case", PLAIN_TTS, ids=golden.ids)
def test_text_to_speech(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The facade, from text and audio to codes; `timesteps` is honoured here, so it is the T."""
    system = _system(case)
    cfg = InferenceConfig(**{**case["cfg_all"], "timesteps": case["default_T"]})
    prompts: list[Any] = []
    trimmed: list[float] = []
    monkeypatch.setattr("mars5.audio_files.MIN_SECONDS", 0.0)  # recorded with any scrap of audio
    monkeypatch.setattr("mars5.engine.build_prompt", _recorder(build_prompt, prompts))
    monkeypatch.setattr("mars5.engine.trim_silence", lambda x, db: (trimmed.append(db), x)[1])
    # The published sampler may end on padding, and the vocoder stub does not mind.
    exact = partial(denoise_exact, allow_padding=True)
    monkeypatch.setattr("mars5.nar.decode.denoise_exact", exact)
    monkeypatch.setattr(Engine, "vocode", lambda self, codes: self.vocoder(codes[None]))
    torch.manual_seed(case["seed"])
    given = case["text"], _reference(case), case["ref_transcript"] or None, cfg
    speech = system.generate(*given, normalise=False)  # recorded as the text stands
    wanted = tensors("tts/outputs.safetensors")
    assert prompts[0].ids == case["prompt_ids"]
    assert prompts[0].n_text + 1 == case["first_codec_idx"]
    assert torch.equal(speech.ar_codes, wanted[f"{case['case']}.ar_codes"])
    assert torch.equal(speech.codes, wanted[f"{case['case']}.final_codes"])
    assert speech.finish_reason == {"eos": "stop"}.get(case["ar_ended_by"], "length")
    assert trimmed == [case["trim_db"]]
    assert system.codec.waves[0].shape[-1] == case["codec_input_shape"][-1]


def _recorder(function: Any, results: list[Any]) -> Any:
    def recorded(*args: Any) -> Any:
        results.append(function(*args))
        return results[-1]

    return recorded


def test_special_strings_in_text_are_plain_characters() -> None:
    tokenizer = golden.text_tokenizer()
    cases = [c for c in TTS["cases"] if "<|" in c["text"]]
    assert cases
    for case in cases:
        prompt = build_prompt(
            case["text"], case["ref_transcript"], [1, 2], tokenizer, golden.speech_tokenizer()
        )
        inside = prompt.ids[1 : prompt.n_text - 1]
        assert not set(inside) & set(tokenizer.specials.values())
        said = f"{case['ref_transcript']} {case['text'].strip()}"
        assert tokenizer.decode(inside) == said


def test_speaker_embedding() -> None:
    case = TTS["cases"][0]
    found = _system(case).get_speaker_embedding(_reference({"audio": "mono"}))
    wanted = tensors("tts/outputs.safetensors")
    assert_close(found, wanted["speaker_embedding"])
    assert_close(found, wanted["speaker_embedding_direct"])


def test_defaults_are_the_published_ones() -> None:
    ours = {"show_reference_once": False}
    assert vars(InferenceConfig()) == {**TTS["config_defaults"], **ours}
