"""Audio played while it is made; needs the extra `[play]`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mars5.audio_writer import Write
from mars5.config import SAMPLE_RATE
from mars5.errors import DeviceError, MissingExtraError


@contextmanager
def loudspeaker() -> Iterator[Write]:
    """A function that plays samples (T,) at 24 kHz, and waits while enough are waiting.

    When the block ends well, what was given is played to its end.

    Raises:
        MissingExtraError: the extra, or the PortAudio library it uses, is not installed.
        DeviceError: there is no loudspeaker.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: no PortAudio
        raise MissingExtraError(
            f"playing needs sounddevice and PortAudio ({error}): pip install 'mars5[play]'; on "
            "Linux also: apt install libportaudio2"
        ) from error
    try:
        output: Any = sounddevice.OutputStream(SAMPLE_RATE, channels=1, dtype="float32")
    except sounddevice.PortAudioError as error:
        raise DeviceError(f"there is nothing to play on ({error}): write a file with -o") from error

    def write(audio: torch.Tensor) -> None:
        output.write(audio[:, None].numpy())

    with output:
        yield write
        output.stop()  # after what is waiting was played
