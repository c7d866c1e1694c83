"""Step 1: a corpus of synthetic speech from a local teacher (`flite`, Debian package of that name).

Audio is cut to a short silence at both ends and kept as 24 kHz int16 in shards of a few hundred
utterances. A shard is written whole or not at all and depends only on (seed, number), so a killed
run continues where it stopped and many processes can share the work.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr
from safetensors import safe_open
from safetensors.numpy import save_file

from mars5.errors import TrainError
from mars5.files import replacing
from mars5.train.sentences import SentenceSource

SAMPLE_RATE = 24_000
LEAD_SECONDS, TAIL_SECONDS = 0.06, 0.12
SHARD_UTTERANCES = 250

# (voice, share, lowest and highest playback speed). A speed other than 1 moves pitch, formants and
# pace together: a cheap way to more speakers. The first voice is the default voice of the result.
VOICES: tuple[tuple[str, float, float, float], ...] = (
    ("slt", 0.55, 1.0, 1.0),
    ("rms", 0.13, 1.0, 1.0),
    ("slt", 0.12, 0.86, 1.12),
    ("rms", 0.12, 0.90, 1.16),
    ("awb", 0.08, 0.94, 1.10),
)


@dataclass(frozen=True)
class Utterance:
    """One recording of a shard. `phones` are (name, end in seconds) within the cut audio."""

    text: str
    voice: str
    speed: float
    start: int
    length: int
    phones: list[tuple[str, float]]


def synthesise(text: str, voice: str, speed: float) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """Speak `text` with flite: (T,) int16 at 24 kHz, and the phones with their end times.

    Raises:
        TrainError: flite is not installed, or refused the text.
    """
    if shutil.which("flite") is None:
        raise TrainError("the teacher 'flite' is not installed: run `apt-get install flite`")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", str(wav)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not wav.is_file():
            raise TrainError(f"flite could not speak {text!r}: {done.stderr.strip()[:200]}")
        audio, rate = soundfile.read(wav, dtype="float32")
    phones = [(p.split(":")[0], float(p.split(":")[1])) for p in done.stdout.split()]
    audio, phones = _cut(audio, rate, phones)
    # Played back `speed` times faster: the samples are taken to be of a higher rate.
    audio = soxr.resample(audio, rate * speed, SAMPLE_RATE)
    pcm = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)
    return pcm, [(p, end / speed) for p, end in phones]


def _cut(
    audio: np.ndarray, rate: int, phones: list[tuple[str, float]]
) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """Keep a short pause at both ends; phone times move with the cut."""
    first = phones[0][1] if phones[0][0] == "pau" else 0.0
    last = phones[-2][1] if phones[-1][0] == "pau" else phones[-1][1]
    begin, end = max(first - LEAD_SECONDS, 0.0), last + TAIL_SECONDS
    kept = [(p, round(min(e, end) - begin, 4)) for p, e in phones]
    return audio[int(begin * rate) : int(end * rate)], kept


def make_shard(folder: Path, number: int, seed: int, source: SentenceSource) -> Path:
    """Write shard `number` unless it exists already; returns its path."""
    path = folder / f"shard-{number:05d}.safetensors"
    if path.exists():
        return path
    rng = random.Random(f"{seed}/{number}")
    audio: list[np.ndarray] = []
    utterances: list[Utterance] = []
    position = 0
    while len(utterances) < SHARD_UTTERANCES:
        text = source.draw(rng)
        voice, _, low, high = rng.choices(VOICES, [v[1] for v in VOICES])[0]
        speed = round(rng.uniform(low, high), 3)
        pcm, phones = synthesise(text, voice, speed)
        if any(b[1] < a[1] for a, b in pairwise(phones)):
            continue  # flite spoke it as several utterances: their clocks start anew
        utterances.append(Utterance(text, voice, speed, position, len(pcm), phones))
        audio.append(pcm)
        position += len(pcm)
    metadata = {"utterances": json.dumps([asdict(u) for u in utterances])}
    with replacing(path) as temporary:
        save_file({"audio": np.concatenate(audio)}, temporary, metadata)
    return path


def read_shard(path: Path) -> Iterator[tuple[Utterance, np.ndarray]]:
    """The utterances of a shard with their (T,) int16 audio."""
    with safe_open(path, "np") as file:
        entries = json.loads(file.metadata()["utterances"])
        audio = file.get_tensor("audio")
    for entry in entries:
        entry["phones"] = [(p, e) for p, e in entry["phones"]]
        utterance = Utterance(**entry)
        yield utterance, audio[utterance.start : utterance.start + utterance.length]


def make_corpus(folder: Path, shards: int, seed: int, workers: int, held_out: list[str]) -> None:
    """Write shards 0..`shards`-1 with `workers` teachers at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    source = SentenceSource(frozenset(held_out))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda n: make_shard(folder, n, seed, source), range(shards)))
