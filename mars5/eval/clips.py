"""Recordings to judge: audio files at the rate of the judges, folders and manifests of them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from mars5.errors import AudioInputError
from mars5.eval.ears import RATE, Wave

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MANIFESTS = (".csv", ".jsonl")
MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Clip:
    """An audio file, what it says, a recording of whom it should sound like, and who speaks."""

    text: str
    path: Path
    reference: Path | None = None
    speaker: str | None = None


def to_judges(wave: Any, rate: int) -> Wave:
    """(T,) samples of any rate as float32 at 16 kHz."""
    samples = np.asarray(wave, dtype=np.float32)
    return samples if rate == RATE else soxr.resample(samples, rate, RATE)


def read_wave(path: Path) -> Wave:
    """An audio file, mixed down, at 16 kHz; unlike a reference it may be silent or empty.

    Raises:
        AudioInputError: the file is missing, damaged, no audio, or longer than ten minutes.
    """
    try:
        with sf.SoundFile(path) as file:
            seconds = file.frames / file.samplerate
            if seconds > MAX_SECONDS:
                raise AudioInputError(
                    f"{path} lasts {seconds:.0f} s, the limit is {MAX_SECONDS:g} s: cut it up"
                )
            samples = file.read(dtype="float32", always_2d=True)
            return to_judges(samples.mean(1), file.samplerate)
    except (sf.SoundFileError, OSError) as error:
        raise AudioInputError(f"cannot read the recording {path}: {error}") from error


def read_folder(folder: Path, texts: Sequence[str]) -> list[Clip]:
    """Audio files whose names begin with the number of a line of the list: `001.wav`, `17-b.flac`.

    Lines count from 1; a line may have several files, or none.

    Raises:
        AudioInputError: there is no such file, or a number that the list does not have.
    """
    found: list[Clip] = []
    for path in sorted(folder.iterdir()):
        number = re.match(r"\d+", path.name)
        if path.suffix.lower() not in SUFFIXES or number is None:
            continue
        line = int(number[0])
        if not 1 <= line <= len(texts):
            raise AudioInputError(
                f"{path} is of line {line}, but the list has lines 1 to {len(texts)}: rename it, "
                "or give its list with --list"
            )
        found.append(Clip(texts[line - 1], path))
    if not found:
        raise AudioInputError(
            f"{folder} holds no audio files named by lines of the list, such as 001.wav: rename "
            "them, or give a manifest (.csv or .jsonl) with text, path and perhaps reference"
        )
    return found


def read_manifest(path: Path) -> list[Clip]:
    """The rows of a CSV file with a header, or of a JSONL file: text, path[, reference, speaker].

    Relative paths start from the manifest's folder.

    Raises:
        AudioInputError: the file cannot be read, has no rows, or a row lacks text or path.
    """
    try:
        rows = _rows(path)
    except (OSError, ValueError, csv.Error) as error:
        raise AudioInputError(f"cannot read the manifest {path}: {error}") from error
    found = [_clip(path, number, row) for number, row in enumerate(rows, 1)]
    if not found:
        raise AudioInputError(f"the manifest {path} has no rows: write text, path[, reference]")
    return found


def _rows(path: Path) -> list[Any]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file if line.strip()]


def _clip(manifest: Path, number: int, row: Any) -> Clip:
    fields: dict[str, Any] = row if isinstance(row, dict) else {}
    text, path = fields.get("text", ""), fields.get("path", "")
    others = [fields.get(name) or None for name in ("reference", "speaker")]
    strings = all(isinstance(value, str) for value in (text, path, *filter(None, others)))
    if not (strings and text.strip() and path):
        raise AudioInputError(
            f"{manifest}: row {number} must have a text and a path, found {row!r:.200}"
        )
    reference, speaker = others
    aim = None if reference is None else manifest.parent / reference
    return Clip(text.strip(), manifest.parent / path, aim, speaker)
