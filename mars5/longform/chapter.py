"""A chapter spoken into a file, with a journal beside it: a run that was killed goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mars5 import __version__
from mars5.audio import file_format, to_pcm16
from mars5.audio_writer import audio_file, told
from mars5.config import SAMPLE_RATE, InferenceConfig
from mars5.engine import Engine
from mars5.errors import ConfigError, TextError
from mars5.files import is_file_name, replacing
from mars5.longform.narration import narrate
from mars5.quantized import is_quantized
from mars5.seeds import Seeds, fresh_seed
from mars5.speech import SpokenPiece, worst_reason
from mars5.streaming.edges import silence
from mars5.text import Piece
from mars5.voice import Voice

if TYPE_CHECKING:
    from mars5.verify import Hearing, Verify

log = logging.getLogger("mars5")

MAX_BYTES = 64 * 2**20  # of a text file: several libraries' worth of chapters
_FACTS = {"samples", "level", "finish_reason", "heard"}


@dataclass(frozen=True)
class Chapter:
    """What `speak_file` made.

    Attributes:
        path: the audio file.
        seconds: its length.
        pieces: how many the text has.
        reused: how many of them an earlier run had made.
        seed: that makes the same file again.
        finish_reason: "length" if any piece was cut off at its limit, else "stop".
        heard: what a recogniser understood of each piece, with its times in the file, if that was
            asked for; of the pieces that an earlier run had made, too.
        spoken: what was spoken when, piece by piece.
    """

    path: Path
    seconds: float
    pieces: int
    reused: int
    seed: int
    finish_reason: str
    heard: tuple[Hearing, ...] = ()
    spoken: tuple[SpokenPiece, ...] = ()


def given_text(text: str | os.PathLike[str]) -> str:
    """The text that `speak_file` is given; warns of a string that looks like a slip.

    Raises:
        TextError: as in `read_text`.
    """
    if isinstance(text, os.PathLike):
        return read_text(text)
    if isinstance(text, str) and is_file_name(text):
        log.warning("speaking the name of the file %r: give Path(%r) to speak its text", text, text)
    return text


def read_text(path: str | os.PathLike[str]) -> str:
    """A file of UTF-8 text, at most 64 MiB.

    Raises:
        TextError: it cannot be read, is too large, or no such text.
    """
    try:
        file = Path(path)
        if file.stat().st_size > MAX_BYTES:
            raise TextError(f"{os.fspath(path)!r} has more than {MAX_BYTES >> 20} MiB: split it")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"cannot read {os.fspath(path)!r} as UTF-8 text: {error}") from error


class Journal:
    """The finished pieces of one chapter, in a folder of their own beside the audio file.

    `journal.json` holds what the pieces depend on; if that changes, they are made anew. Each
    piece is a file of 16-bit samples and one of facts, which is written last.

    Args:
        folder: made if it is not there.
        facts: what the pieces depend on, all but the seed.
        seed: None takes that of the pieces that are there, or a new one.

    Raises:
        ConfigError: the folder cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], seed: int | None) -> None:
        self._folder = folder
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        found = self._read("journal")
        same = found.get("digest") == digest and isinstance(found.get("seed"), int)
        if same and seed in (None, found["seed"]):
            self.seed: int = found["seed"]
            return
        self.seed = fresh_seed() if seed is None else seed
        with told(folder):
            if folder.exists():
                _clear(folder, bool(found))
            folder.mkdir()
        self._write("journal", {"digest": digest, "seed": self.seed})

    def finished(self) -> list[dict[str, Any]]:
        """Facts of the finished pieces, from the first on."""
        facts: list[dict[str, Any]] = []
        while (found := self._read(f"{len(facts):06d}")).keys() >= _FACTS:
            facts.append(found)
        return facts

    def add(self, index: int, audio: Tensor, facts: dict[str, Any]) -> None:
        """Keep a piece: whole, or not at all."""
        path = self._folder / f"{index:06d}.npy"
        with told(path), replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, to_pcm16(audio))
        self._write(f"{index:06d}", facts)

    def audio(self, index: int) -> Tensor:
        """(T,) float32 of a finished piece."""
        path = self._folder / f"{index:06d}.npy"
        with told(path):
            return torch.from_numpy(np.load(path).astype(np.float32) / 2**15)

    def remove(self) -> None:
        """Delete the folder: the chapter is complete."""
        with told(self._folder):
            _delete(self._folder)

    def _read(self, name: str) -> dict[str, Any]:
        """Facts that were written; {} if there are none that can be read."""
        try:
            found = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, name: str, facts: dict[str, Any]) -> None:
        path = self._folder / f"{name}.json"
        with told(path), replacing(path) as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")


def speak_chapter(
    engine: Engine,
    pieces: list[Piece],
    output: str | os.PathLike[str],
    voice: Voice,
    cfg: InferenceConfig,
    seed: int | None,
    progress: bool,
    check: Verify | None,
) -> Chapter:
    """See `Mars5TTS.speak_file`."""
    path = Path(os.fsdecode(output))
    file_format(path.suffix.lower())  # what can be refused is refused before the long work
    for piece in pieces:
        engine.task(piece.text, voice, None, cfg, None)
    with told(path):
        folder = path.with_name(f"{path.name}.part")
    journal = Journal(folder, _facts(engine, pieces, voice, cfg, check), seed)
    facts = journal.finished()
    reused = len(facts)
    with _bar(len(pieces), reused, progress) as bar:
        for made in _made(engine, pieces, voice, cfg, check, journal, facts):
            facts.append(made)
            bar.update()
    with audio_file(path) as write:
        for index in range(len(pieces)):
            write(journal.audio(index))
    journal.remove()
    samples = sum(made["samples"] for made in facts)
    reason = worst_reason(made["finish_reason"] for made in facts)
    return Chapter(
        path, samples / SAMPLE_RATE, len(pieces), reused, journal.seed, reason,
        _heard(facts), _spoken(pieces, facts),
    )  # fmt: skip


def _made(
    engine: Engine,
    pieces: list[Piece],
    voice: Voice,
    cfg: InferenceConfig,
    check: Verify | None,
    journal: Journal,
    done: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Make what is missing."""
    first = len(done)
    target = done[0]["level"] if done else None
    seeds = Seeds(journal.seed)
    passages = narrate(engine, pieces[first:], voice, cfg, seeds, check, first=first, target=target)
    for passage in passages:
        made = {
            "samples": len(passage.audio),
            "level": passage.level,
            "finish_reason": passage.speech.finish_reason,
            "heard": [asdict(hearing) for hearing in passage.heard],
        }
        journal.add(passage.index, passage.audio, made)
        yield made


def _heard(facts: list[dict[str, Any]]) -> tuple[Hearing, ...]:
    """What was understood of the pieces that have these facts, one after the other."""
    from mars5.verify import Hearing

    heard, at = [], 0
    for made in facts:
        heard += [Hearing.of_facts(one).shifted(at / SAMPLE_RATE) for one in made["heard"]]
        at += made["samples"]
    return tuple(heard)


def _spoken(pieces: list[Piece], facts: list[dict[str, Any]]) -> tuple[SpokenPiece, ...]:
    """Where the pieces that have these facts lie in the audio of all."""
    spoken, at = [], 0
    for piece, made in zip(pieces, facts, strict=True):
        start = at + len(silence(piece.pause_before))
        at += made["samples"]
        stop = at - len(silence(piece.pause_after))
        spoken.append(SpokenPiece(piece.text, start, stop, made["finish_reason"]))
    return tuple(spoken)


def _facts(
    engine: Engine, pieces: list[Piece], voice: Voice, cfg: InferenceConfig, check: Verify | None
) -> dict[str, Any]:
    """What the sound of the pieces depends on, beside the seed."""
    heard = voice.delivery
    spoken_by = (voice.codes, heard.codes, voice.ar_speaker, voice.nar_speaker)
    return {
        "version": __version__,
        "checkpoint": engine.voices.fingerprint,
        "device": str(engine.device),
        "precision": str(engine.ar.embed.weight.dtype),
        "quantized": is_quantized(engine.ar),  # embeddings are not rounded
        "voice": [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in spoken_by],
        "transcripts": [voice.transcript, heard.transcript],  # of the NAR and the AR
        "settings": asdict(cfg),
        "verify": None if check is None else asdict(check),
        "pieces": [asdict(piece) for piece in pieces],
    }


def _clear(folder: Path, ours: bool) -> None:
    """Remove the pieces of another text, seed or setting; nothing that is not a journal's."""
    if not ours and any(not path.name.startswith(".mars5-") for path in folder.iterdir()):
        raise ConfigError(
            f"{os.fspath(folder)!r} is where unfinished pieces would go, but holds other things: "
            "move it away, or choose another output"
        )
    _delete(folder)


def _delete(folder: Path) -> None:
    """Delete a journal, `journal.json` after all pieces: killed on the way, it is known as ours."""
    for path in sorted(folder.glob("[0-9]*")):  # facts before their samples, as they need these
        path.unlink()
    shutil.rmtree(folder)


def _bar(total: int, done: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc="pieces", disable=not shown, leave=False)
