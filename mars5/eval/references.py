"""References: whose voice is to be spoken with, and real people's recordings found on the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mars5.errors import AudioInputError
from mars5.eval.clips import read_manifest

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
_LINE = re.compile(r"<s>\s*(.*?)\s*</s>\s*\((\S+)\)")


@dataclass(frozen=True)
class Reference:
    """A recording to clone.

    Attributes:
        path: the audio file.
        speaker: who speaks; recordings with the same name are of one person.
        transcript: what is said, if known.
    """

    path: Path
    speaker: str
    transcript: str | None = None


def librivox(folder: Path = LIBRIVOX) -> list[Reference]:
    """The clips of a LibriVox reader in Debian's `pocketsphinx-testdata` (BSD-2-Clause), 3 to 7 s.

    Raises:
        AudioInputError: the package is not installed.
    """
    try:
        lines = (folder / "transcription").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise AudioInputError(
            f"the LibriVox references are not there ({error}): run "
            "`apt-get install pocketsphinx-testdata`"
        ) from error
    found = [match for line in lines if (match := _LINE.fullmatch(line.strip()))]
    return [Reference(folder / f"{m[2]}.wav", "librivox", m[1]) for m in found]


def read_references(name: str) -> list[Reference]:
    """The references that a name means: "librivox", or a manifest of recordings.

    A manifest is as in `read_manifest`: text is what is said, path the audio; rows with the same
    speaker are of one person, rows without are each of their own.

    Raises:
        AudioInputError: they are not there, or cannot be read.
    """
    if name == "librivox":
        return librivox()
    clips = read_manifest(Path(name))
    return [Reference(clip.path, clip.speaker or str(clip.path), clip.text) for clip in clips]
