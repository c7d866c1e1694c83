"""The shipped style bank: captioned clips of the local teacher, spoken in different ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import soundfile

from mars5.files import replacing
from mars5.styles import MANIFEST
from mars5.train.teachers import SAMPLE_RATE, Speaker, speak

LICENCE = "CMU (permissive), voices of Flite"
COMPRESSION = 0.94  # of Opus, 0 to 1: about 24 kbit/s


@dataclass(frozen=True)
class Delivery:
    """One clip: how it sounds, in words, and what makes the teacher sound so."""

    caption: str
    text: str
    speaker: Speaker
    pace: float


DELIVERIES = {
    "warm": Delivery(
        "warm and reassuring, a calm and friendly low voice",
        "There is no need to hurry, we will find a good answer together.",
        Speaker("flite", "rms", 1.0, 98, 16), 0.92,
    ),
    "serious": Delivery(
        "serious and formal, measured, with authority, a low voice",
        "The members of the board have made their decision this morning.",
        Speaker("flite", "rms", 0.97, 92, 9), 0.95,
    ),
    "solemn": Delivery(
        "deep, slow and solemn, a dramatic storyteller",
        "Long ago a king lived alone in a tower by the dark sea.",
        Speaker("flite", "rms", 0.88, 78, 18), 0.8,
    ),
    "sad": Delivery(
        "sad, subdued and slow, a low falling voice",
        "Nobody came to the station, and the rain did not stop.",
        Speaker("flite", "slt", 1.0, 142, 8), 0.8,
    ),
    "soothing": Delivery(
        "soft and gentle, soothing and calm, a sleepy bedtime story",
        "Close your eyes now, the moon is high and the house is quiet.",
        Speaker("flite", "slt", 1.0, 158, 14), 0.78,
    ),
    "neutral": Delivery(
        "neutral, plain and even, a clear narrator",
        "The library opens at nine and closes at six on most days.",
        Speaker("flite", "slt"), 1.0,
    ),
    "matter-of-fact": Delivery(
        "matter of fact, sober, an ordinary natural reading",
        "The next meeting takes place on Thursday in the small room upstairs.",
        Speaker("flite", "rms"), 1.0,
    ),
    "announcer": Delivery(
        "clear, professional and confident, a brisk news announcer",
        "Good evening, here are the main stories of the day from our studio.",
        Speaker("flite", "rms", 1.0, 116, 22), 1.12,
    ),
    "monotone": Delivery(
        "monotone, bored and tired, flat like a robot",
        "Please wait until the next member of our staff can take your call.",
        Speaker("flite", "rms", 1.0, 105, 2), 0.95,
    ),
    "hurried": Delivery(
        "hurried and urgent, impatient, very fast",
        "Come on, we have to leave right now or we will miss the last train home.",
        Speaker("flite", "rms", 1.03, 124, 22), 1.4,
    ),
    "cheerful": Delivery(
        "cheerful, happy and bright, a lively high voice",
        "What a lovely morning, the sun is out and everybody is smiling.",
        Speaker("flite", "slt", 1.04, 208, 42), 1.1,
    ),
    "excited": Delivery(
        "excited and enthusiastic, full of energy, fast and very high",
        "I cannot believe it, we have won the first prize after all these years.",
        Speaker("flite", "slt", 1.06, 240, 55), 1.25,
    ),
    "playful": Delivery(
        "playful and young, a small childlike voice",
        "Can you guess what I have found under the big apple tree?",
        Speaker("flite", "slt", 1.2, 265, 45), 1.05,
    ),
}  # fmt: skip


PLAIN = {"slt": "neutral", "rms": "matter-of-fact"}  # by voice of the teacher


def make_bank(target: Path) -> list[Path]:
    """Write the clips, in Opus, and their manifest; returns the files.

    The clips are recordings, so they serve every checkpoint, whatever its codec.

    Raises:
        TrainError: the teacher is not installed.
    """
    target.mkdir(parents=True, exist_ok=True)
    rows, paths = [], []
    for name, delivery in DELIVERIES.items():
        pcm, _ = speak(delivery.text, delivery.speaker, delivery.pace)
        path = target / f"{name}.ogg"
        with replacing(path) as temporary:
            soundfile.write(
                temporary, pcm, SAMPLE_RATE, format="OGG", subtype="OPUS",
                compression_level=COMPRESSION,
            )  # fmt: skip
        row = {
            "name": name,
            "file": path.name,
            "caption": delivery.caption,
            "text": delivery.text,
            "licence": LICENCE,
            "source": f"{delivery.speaker}, pace {delivery.pace:g}",
        }
        rows.append(row | {"plain": PLAIN[delivery.speaker.voice]})
        paths.append(path)
    manifest = target / MANIFEST
    with replacing(manifest) as temporary:
        temporary.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return [*paths, manifest]
