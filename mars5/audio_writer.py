"""Audio written while it is made: files, and WAV or bare samples into a pipe."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import soundfile as sf
from torch import Tensor

from mars5.audio import file_format, to_pcm16
from mars5.config import SAMPLE_RATE
from mars5.errors import ConfigError, Mars5Error
from mars5.files import replacing

_ENDLESS = 0xFFFF_FFFF  # what WAV headers say of data whose length is not known yet
_BYTES = 2  # of a sample

Write = Callable[[Tensor], None]


@contextmanager
def audio_file(path: str | os.PathLike[str]) -> Iterator[Write]:
    """A function that adds samples (T,), floats with full scale 1 at 24 kHz, to a new file.

    The file appears under its name, complete, when the block ends; if the block fails, nothing
    does. Memory does not grow with the length.

    Args:
        path: its suffix decides the format, as in `mars5.audio.write_audio`.

    Raises:
        ConfigError: the suffix or place will not do, or the disk is full.
        AudioInputError: what was added is no audio.
    """
    target = Path(os.fsdecode(path))
    kind, subtype = file_format(target.suffix.lower())
    with ExitStack() as opened:
        with told(target):
            temporary = opened.enter_context(replacing(target))
            file = opened.enter_context(
                sf.SoundFile(temporary, "w", SAMPLE_RATE, 1, subtype, format=kind)
            )

        def write(audio: Tensor) -> None:
            with told(target):
                # libsndfile crashes on minutes of Vorbis in one write, so a second at a time
                for part in audio.split(SAMPLE_RATE):
                    file.write(to_pcm16(part))

        yield write
        with told(target):
            opened.close()


@contextmanager
def told(target: Path) -> Iterator[None]:
    """Turns what the system says of a file that cannot be written into a `ConfigError`."""
    try:
        yield
    except Mars5Error:
        raise
    except (OSError, ValueError, sf.LibsndfileError) as error:  # ValueError: a zero byte in it
        raise ConfigError(
            f"cannot write {os.fspath(target)!r}: {error}; give a file name in an existing folder "
            "that you may write to and that has space"
        ) from error


def wav_stream(pipe: BinaryIO) -> Write:
    """A function that writes samples to a pipe, after a WAV header that leaves the length open."""
    layout = (16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * _BYTES, _BYTES, 8 * _BYTES)  # PCM, one channel
    pipe.write(struct.pack("<4sI4s", b"RIFF", _ENDLESS, b"WAVE"))
    pipe.write(struct.pack("<4sIHHIIHH", b"fmt ", *layout))
    pipe.write(struct.pack("<4sI", b"data", _ENDLESS))
    return raw_stream(pipe)


def raw_stream(pipe: BinaryIO) -> Write:
    """A function that writes samples to a pipe: 16 bits, little end first, nothing around them."""

    def write(audio: Tensor) -> None:
        pipe.write(to_pcm16(audio).astype("<i2").tobytes())
        pipe.flush()

    return write
