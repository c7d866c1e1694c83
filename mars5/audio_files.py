"""Audio files as hostile input: what they are, whether they are whole, and a bounded decode."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile as sf

from mars5.audio_bytes import FileBytes
from mars5.errors import AudioInputError

Wave = npt.NDArray[np.float32]

MAX_FILE_BYTES = 64 * 2**20
MAX_CHANNELS = 16
MIN_RATE, MAX_RATE = 4_000, 192_000
MIN_SECONDS = 0.2
_READS = "WAV, FLAC, OGG or MP3"

_BLOCK_FRAMES = 2**15
_UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 for a FLAC stream of unstated length
_STREAMED_SIZE = 0x7FFFF000  # sizes from here on are what programs write into a pipe: unknown
_MAX_RIFF_CHUNKS = 1000
_MAX_VOICE_INDEX = 2**20  # bytes, with the notes that it holds
_SUBTYPES = {
    *("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_III"),
}
_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"}

_MAGIC = (
    (0, b"RIFF", "an AVI video or another RIFF file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (4, b"ftypM4A", "an M4A (AAC) file"),
    (4, b"ftyp", "an MP4 or QuickTime video"),
    (0, b"\x00\x00\x01\xba", "an MPEG video"),
    (0, b"\x00\x00\x01\xb3", "an MPEG video"),
    (0, b"FLV", "a Flash video"),
    (0, b"0&\xb2u", "a Windows Media file"),
    (0, b"FORM", "an AIFF file"),
    (0, b"caff", "a CAF file"),
    (0, b".snd", "an AU file"),
    (0, b"\xff\xf1", "an AAC stream"),
    (0, b"\xff\xf9", "an AAC stream"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Salted__", "an encrypted file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
)


class _ForwardReader(sf.SoundFile):  # type: ignore[misc]
    """A reader that never seeks.

    `SoundFile` seeks after every read, which makes audible joints in an MP3 read by blocks and
    fails on FLAC streams whose header states no length or too great a one.
    """

    def seekable(self) -> bool:
        return False


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most 64 MiB; raises `AudioInputError` otherwise."""
    with open_regular(path) as file:
        return file.read(MAX_FILE_BYTES + 1)  # one more than `decode` takes, so it can tell


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, to be read; raises `AudioInputError` for anything else."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioInputError(f"{path} is a folder, not an audio file; name a file in it")
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never ends
            raise AudioInputError(f"{path} is a device or a pipe; save the audio to a file first")
        with path.open("rb") as file:
            yield file
    except AudioInputError:  # also a ValueError
        raise
    except FileNotFoundError as error:
        raise AudioInputError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise AudioInputError(f"{os.fspath(path)!r} cannot be read: {error}") from error


def check_layout(name: str, rate: int, channels: int) -> None:
    """Refuse sample rates outside 4-192 kHz and more than 16 channels."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioInputError(
            f"{name} has a sample rate of {rate} Hz; the limits are {MIN_RATE} and {MAX_RATE} Hz: "
            "resample it first, to 24000 Hz at best"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioInputError(
            f"{name} has {channels} channels; the limit is {MAX_CHANNELS}: mix it down to one first"
        )


def check_duration(name: str, frames: int, rate: int, max_seconds: float) -> None:
    """Refuse audio without samples, under 0.2 s, or over `max_seconds`."""
    seconds = frames / rate
    if frames == 0:
        raise AudioInputError(f"{name} holds no samples; give 2 to 12 seconds of speech")
    if seconds < MIN_SECONDS:
        raise AudioInputError(
            f"{name} lasts {seconds:.3f} s; a reference needs at least {MIN_SECONDS} s, "
            "2 to 12 s at best"
        )
    if seconds > max_seconds:
        raise AudioInputError(
            f"{name} lasts {seconds:.1f} s or more; the limit is {max_seconds:g} s: "
            "cut 2 to 12 s of clear speech out of it"
        )


def decode(data: bytes, name: str, max_seconds: float) -> tuple[Wave, int]:
    """Decode a WAV, FLAC, OGG or MP3 file that is whole and within the limits.

    The limits hold for what the header claims, before any work, and again for what is decoded:
    never more than `max_seconds` of it, whatever the header says.

    Args:
        data: the file's bytes.
        name: what error messages call the audio.

    Returns:
        The mean of the channels, (T,) float32, full scale 1, and the sample rate in Hz.

    Raises:
        AudioInputError: not audio, damaged, cut short, or outside the limits.
    """
    if len(data) > MAX_FILE_BYTES:
        raise AudioInputError(
            f"{name} is larger than {MAX_FILE_BYTES // 2**20} MiB; cut 2 to 12 s of it out"
        )
    with opened(data, io.BytesIO(data), name, max_seconds) as (rate, blocks):
        return np.concatenate([np.zeros(0, np.float32), *blocks]), rate


@contextmanager
def opened(
    data: bytes | FileBytes, file: BinaryIO, name: str, max_seconds: float
) -> Iterator[tuple[int, Iterator[Wave]]]:
    """The sample rate and the mono blocks of an audio file, under the rules of `decode`.

    What can be judged is judged at once, before a block is decoded; what only the end can tell,
    such as a header that claims more than there is, after the last block.

    Args:
        data: the file's bytes, for a look at its structure.
        file: the same bytes, to be decoded from its beginning.
    """
    if not len(data):
        raise AudioInputError(f"{name} is empty (0 bytes); give a {_READS} file")
    shortest = _check_container(data, name, max_seconds)
    try:
        with _ForwardReader(file) as reader:
            yield int(reader.samplerate), _checked_blocks(reader, name, max_seconds, shortest)
    except sf.LibsndfileError as error:
        raise AudioInputError(
            f"{name} is damaged or cut short ({error.error_string}); export it again as WAV"
        ) from error


def _checked_blocks(
    file: sf.SoundFile, name: str, max_seconds: float, shortest: int
) -> Iterator[Wave]:
    if file.format not in _FORMATS or file.subtype not in _SUBTYPES:
        raise AudioInputError(
            f"{name} holds {file.format} audio coded as {file.subtype}, which is not read here; "
            "convert it to 16-bit WAV"
        )
    rate = int(file.samplerate)
    check_layout(name, rate, file.channels)
    claimed = file.frames if 0 <= file.frames < _UNKNOWN_FRAMES else None
    if claimed is not None:
        check_duration(name, claimed, rate, max_seconds)
    return _blocks(file, name, max_seconds, claimed, shortest)


def _blocks(
    file: sf.SoundFile, name: str, max_seconds: float, claimed: int | None, shortest: int
) -> Iterator[Wave]:
    """Mixed block by block: 16 channels are never all in memory."""
    rate = int(file.samplerate)
    most = int(max_seconds * rate) + 1
    n = 0
    while n < most:
        block = file.read(min(_BLOCK_FRAMES, most - n), dtype="float32", always_2d=True)
        if not len(block):
            break
        n += len(block)
        with np.errstate(invalid="ignore", over="ignore"):  # judged later, as NaN or infinite
            yield block.mean(1)
    slack = 1152 + n // 50 if file.format == "MP3" else 0  # its count is an estimate
    if claimed is not None and n + slack < claimed:
        raise AudioInputError(
            f"{name} is cut short: its header claims {claimed} frames, {n} could be "
            "decoded; get the whole file"
        )
    if n + slack < shortest:
        raise AudioInputError(
            f"{name} has a false or no length in its header: {n} frames could be decoded, "
            f"at least {shortest} are there; convert it to WAV"
        )
    check_duration(name, n, rate, max_seconds)


def _check_container(data: bytes | FileBytes, name: str, max_seconds: float) -> int:
    """Refuse what is not audio or is visibly cut; returns the frames an MP3 holds at least."""
    kind = container(data)
    if kind == "WAV":
        _check_wav_whole(data, name)
    elif kind == "OGG":
        _check_ogg_whole(data, name)
    elif kind == "MP3":
        return _check_mp3_whole(data, name, max_seconds)
    elif _is_voice(data):
        raise AudioInputError(
            f"{name} is a voice file, not audio: give it to --voice (to edit: let its name end in "
            ".voice), or in Python as Voice.load(path)"
        )
    elif kind is None:
        raise AudioInputError(
            f"{name} looks like {_describe(data)}, not like audio; give a {_READS} file"
        )
    return 0


def container(data: bytes | FileBytes) -> str | None:
    """The kind of audio file that begins like this: WAV, OGG, MP3, FLAC; None for none."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return "WAV"
    if data[:3] == b"ID3" or _mp3_frame(data, 0):
        return "MP3"
    return {b"OggS": "OGG", b"fLaC": "FLAC"}.get(data[:4])


def _is_voice(data: bytes | FileBytes) -> bool:
    """Whether the index of a safetensors file states the format that `Voice.save` writes."""
    length = min(int.from_bytes(data[:8], "little"), _MAX_VOICE_INDEX)
    return data[8:9] == b"{" and b'"mars5-voice ' in data[8 : 8 + length]


def _describe(data: bytes | FileBytes) -> str:
    """Name what bytes that are not audio look like."""
    for offset, magic, what in _MAGIC:
        if data.startswith(magic, offset):
            encrypted = magic[:2] == b"PK" and len(data) > 6 and data[6] & 1
            return "an encrypted zip archive" if encrypted else what
    text = data[:2048].decode("utf-8", "replace").lstrip("\ufeff \r\n\t").lower()
    if "\0" in text or text.count("\ufffd") > 1:  # one may be a character cut by the slice
        return "unknown binary data, perhaps encrypted"
    if text.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    if text.startswith(("#extm3u", "[playlist]", "<?xml", "<asx")) or "://" in text:
        return "a playlist or a link (fetch the audio itself first)"
    return "a text file"


def _cut(name: str, found: str) -> AudioInputError:
    return AudioInputError(f"{name} is cut short: {found}; get the whole file")


def _check_wav_whole(data: bytes | FileBytes, name: str) -> None:
    """Compare the size in the `data` chunk with the bytes there: libsndfile clips it silently."""
    order = "big" if data[:4] == b"RIFX" else "little"
    at, wide = 12, 0
    for _ in range(_MAX_RIFF_CHUNKS):
        size = int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
        if data[at : at + 4] == b"ds64":
            wide = int.from_bytes(data[at + 16 : at + 24], "little")
        elif data[at : at + 4] == b"data":
            size = wide if data[:4] == b"RF64" else size
            there = len(data) - at - 8
            if there < size and not _STREAMED_SIZE <= size < 2**32:
                raise _cut(name, f"its header claims {size} bytes of samples, {there} are there")
            return
        at += 8 + size + size % 2
        if at + 8 > len(data):
            raise _cut(name, "a WAV header without a chunk of samples")
    raise AudioInputError(
        f"{name} has more than {_MAX_RIFF_CHUNKS} WAV chunks before its samples; convert it again"
    )


def _check_ogg_whole(data: bytes | FileBytes, name: str) -> None:
    """The last page must be complete and marked as the end: libsndfile takes any last page."""
    if b"theora" in data[:256] or b"fishead" in data[:256]:
        raise AudioInputError(
            f"{name} looks like an OGG video, not like audio; give a {_READS} file"
        )
    last = data.rfind(b"OggS")
    lacing = data[last + 27 : last + 27 + data[last + 26]] if last + 27 <= len(data) else b""
    if not lacing or last + 27 + len(lacing) + sum(lacing) > len(data):
        raise _cut(name, "its last OGG page is incomplete")
    if not data[last + 5] & 4:
        raise _cut(name, "its last OGG page is not marked as the end of the stream")


def _check_mp3_whole(data: bytes | FileBytes, name: str, max_seconds: float) -> int:
    """Walk the frame headers, which cannot lie about their number; returns the PCM frames due."""
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        high, mid, low, least = data[6:10]
        at = 10 + (high << 21 | mid << 14 | low << 7 | least)
        if at >= len(data):
            raise _cut(name, "it ends within its ID3 tag")
    counted = samples = 0
    for _ in range(int(50 * max_seconds) + 1):  # a frame lasts 24 ms or more
        frame = _mp3_frame(data, at)
        if frame is None:
            break
        size, samples = frame
        if at + size > len(data):
            raise _cut(name, "its last MP3 frame is incomplete")
        at += size
        counted += samples
    return counted - 4 * samples  # the encoder's own frame, delay and padding are not played


def _mp3_frame(data: bytes | FileBytes, at: int) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame at `at`, or None if there is none."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version = data[at + 1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate_index, bits_index = data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or rate_index == 3 or bits_index in (0, 15):
        return None
    first = version == 3
    kbps = (_KBPS_MPEG1 if first else _KBPS_MPEG2)[bits_index]
    rate = (44_100, 48_000, 32_000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    size = (144_000 if first else 72_000) * kbps // rate + (data[at + 2] >> 1 & 1)
    return size, 1152 if first else 576


_KBPS_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
