"""The bytes of audio: those that a caller holds, and a file looked at through a small window."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, overload

from mars5.errors import AudioInputError

_WINDOW = 2**18  # bytes; an OGG page, the longest thing looked for, has at most 65307


def given_bytes(audio: object, most: int) -> bytes | None:
    """What bytes of any kind hold, or a binary file object from where it is; None for all else.

    Args:
        most: of a file object, which is put back to where it was, if it can be.

    Raises:
        AudioInputError: a file object that cannot be read, gives text, or more than `most` bytes.
    """
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return bytes(audio)
    return _read(audio, most) if hasattr(audio, "read") else None


def _read(file: Any, most: int) -> bytes:
    try:
        place = file.tell() if file.seekable() else None
        data = file.read(most + 1)
        if place is not None:
            file.seek(place)
    except (OSError, ValueError, AttributeError) as error:  # ValueError: it is closed
        raise AudioInputError(
            f"the audio file object cannot be read: {error}; give the path, or the bytes"
        ) from error
    if not isinstance(data, bytes):
        raise AudioInputError(
            f"the audio file object gives {type(data).__name__}, not bytes: open it with mode 'rb'"
        )
    if len(data) > most:
        raise AudioInputError(
            f"the audio file object holds more than {most >> 20} MiB: give the path, or a part"
        )
    return data


class FileBytes:
    """Reads like `bytes`, as far as the checks of audio files need, from an open file.

    The file is read, never mapped: a mapped file that shrinks while in use kills the process.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = os.fstat(file.fileno()).st_size
        self._at = 0
        self._window = b""

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            return self._read(key, key + 1)[0]
        start, stop, _ = key.indices(self._length)
        return self._read(start, max(start, stop))

    def startswith(self, prefix: bytes, start: int = 0) -> bool:
        """As that of `bytes`."""
        return self[start : start + len(prefix)] == prefix

    def rfind(self, wanted: bytes) -> int:
        """As that of `bytes`, but only the last 256 KiB are searched."""
        start = max(0, self._length - _WINDOW)
        found = self._read(start, self._length).rfind(wanted)
        return start + found if found >= 0 else -1

    def _read(self, start: int, stop: int) -> bytes:
        if start < self._at or stop > self._at + len(self._window):
            place = self._file.tell()
            self._file.seek(start)
            self._at, self._window = start, self._file.read(max(_WINDOW, stop - start))
            self._file.seek(place)  # the decoder reads on from where it was
        return self._window[start - self._at : stop - self._at]
