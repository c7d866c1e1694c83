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
from golden_data import (
    GENERATE_CONFIG,
    NAR_CONFIG,
    ROOT,
    ar_dims,
    assert_close,
    generator_model,
    nar_dims,
    read_json,
    tensors,
)
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.audio import trim_interval, trim_silence
from mars5.checkpoint import convert, load_pair, read_checkpoint
from mars5.config import InferenceConfig, ModelConfig
from mars5.engine import Engine
from mars5.nar.decode import denoise_exact
from mars5.nar.model import ResidualTransformer
from mars5.prompt import build_prompt
from mars5.tts import Mars5TTS
from mars5.vocoder import Vocoder, VocoderDims


@pytest.mark.parametrize(
    "case", golden.cases("trim/cases.json"), ids=lambda c: f"{c['signal']}-{c['top_db']}"
)
def test_trim(case: dict[str, Any]) -> None:
    signal = tensors("trim/signals.safetensors")[case["signal"]]
    assert trim_interval(signal, case["top_db"]) == (case["start"], case["end"])
    assert list(trim_silence(signal, case["top_db"]).shape) == case["output_shape"]


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
    """Makes a sound that is not trimmed, of any codes."""

    def features(self, codes: Tensor) -> Tensor:
        return codes.mT.float()

    def wave(self, features: Tensor) -> Tensor:
        return torch.ones(1, 320 * features.shape[2])


def _system(case: dict[str, Any]) -> Mars5TTS:
    nar_dimensions = nar_dims(NAR_CONFIG["constructor"], case["default_T"])
    nar = ResidualTransformer(nar_dimensions)
    nar.load_state_dict(tensors("nar/weights.safetensors"))
    engine = Engine(
        generator_model(case["output_row_override"]),
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
    ours = {
        "show_reference_once": False,
        "nar_settle_step": 0,
        "voice_conversion": 0.0,
        "speed": 1.0,
    }
    assert vars(InferenceConfig()) == {**TTS["config_defaults"], **ours}
