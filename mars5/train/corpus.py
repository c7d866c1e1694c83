"""Step 1: a corpus of synthetic speech from the local teachers (`mars5.train.teachers`).

Audio is cut to a short silence at both ends and kept as 24 kHz int16 in shards of 50 or 250
utterances. A shard is written whole or not at all and depends only on (seed, cast, number), so a
killed run continues where it stopped and many processes can share the work.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from mars5.files import replacing
from mars5.train.sentences import SentenceSource
from mars5.train.teachers import CASTS, PACES, speak

SHARD_UTTERANCES = dict.fromkeys(CASTS, 250) | {"kokoro": 50}  # small pieces of a slow teacher


@dataclass(frozen=True)
class Utterance:
    """One recording of a shard. `phones` are (name, end in seconds) within the cut audio."""

    text: str
    speaker: str
    start: int
    length: int
    phones: list[tuple[str, float]]


def make_shard(folder: Path, cast: str, number: int, seed: int, source: SentenceSource) -> Path:
    """Write shard `number` of a cast unless it exists already; returns its path."""
    path = folder / f"{cast}-{number:05d}.safetensors"
    if path.exists():
        return path
    rng = random.Random(f"{seed}/{cast}/{number}")
    audio: list[np.ndarray] = []
    utterances: list[Utterance] = []
    position = 0
    while len(utterances) < SHARD_UTTERANCES[cast]:
        text, speaker = source.draw(rng), CASTS[cast](rng)
        pcm, phones = speak(text.spoken, speaker, rng.uniform(*PACES))
        if any(b[1] < a[1] for a, b in pairwise(phones)):
            continue  # flite spoke it as several utterances: their clocks start anew
        utterances.append(Utterance(text.written, str(speaker), position, len(pcm), phones))
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


def make_corpus(
    folder: Path, cast: str, shards: int, seed: int, workers: int, held_out: list[str]
) -> None:
    """Write shards 0..`shards`-1 of a cast (a key of `CASTS`) with `workers` teachers at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    source = SentenceSource(frozenset(held_out))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda n: make_shard(folder, cast, n, seed, source), range(shards)))
