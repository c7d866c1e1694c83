"""Weight files that nobody vouches for: recognised, indexed and read one tensor at a time.

Only the index is read at first and compared with the file's true size, so that no number written
in a file is believed before memory is asked for. Tensors are read into fresh memory and never
mapped: if another process shortens a mapped file, this one dies.
"""

from __future__ import annotations

import json
import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mars5.errors import CheckpointError

# The published files hold about 600 tensors, 0.3 MB of index and 1.4 GiB.
MAX_FILE_BYTES = 16 * 1024**3
MAX_INDEX_BYTES = 8 * 1024**2
MAX_TENSORS = 10_000
MAX_AXES = 8

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
AGAIN = "download or copy it again"
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True)
class TensorInfo:
    """What an index states of a tensor, checked: a float type and axes of at least 1."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class WeightFile(ABC):
    """An open, indexed weight file.

    Attributes:
        path: for messages.
        entries: the tensors by name.
        texts: the texts stored beside them.
    """

    path: Path
    entries: dict[str, TensorInfo]
    texts: dict[str, str]

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor in fresh CPU memory, as stored or converted to `dtype`.

        Raises:
            CheckpointError: the file has become shorter; NaN or Inf, also if only in `dtype`.
        """
        info = self.entries[name]
        tensor = torch.empty(info.shape, dtype=dtype or info.dtype)
        stored = tensor
        if tensor.dtype != info.dtype:
            stored = self._buffer[: info.nbytes].view(info.dtype).view(info.shape)
        self._fill(name, stored.reshape(-1).view(torch.uint8).numpy().data)
        if stored is not tensor:
            tensor.copy_(stored)
        require_finite(self.path, name, tensor)
        return tensor

    @cached_property
    def _buffer(self) -> Tensor:
        # Memory allotted and freed for each tensor, between tensors that stay, leaves holes: a
        # model took up to a fifth more.
        return torch.empty(max(x.nbytes for x in self.entries.values()), dtype=torch.uint8)

    @abstractmethod
    def _fill(self, name: str, out: memoryview) -> None:
        """Read the bytes of a tensor, as many as `out` holds."""

    def _check_filled(self, name: str, got: int, wanted: int) -> None:
        if got != wanted:
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} gave {got} of its {wanted} bytes: the file "
                "changed while it was read; load it again"
            )


class SafetensorsFile(WeightFile):
    """A `.safetensors` file; its header is checked here before a tensor is read.

    Raises:
        CheckpointError: the header is not what the format allows, or the tensors do not cover
            the rest of the file exactly once.
    """

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self._file = file
        header = self._read_header()
        self.texts = self._read_texts(header.pop(_METADATA, {}))
        check_count(path, len(header))
        self.entries = {}
        self._begins: dict[str, int] = {}
        for name, item in header.items():
            self.entries[name], self._begins[name] = self._read_entry(name, item)
        self._check_cover(size_of(file) - self._data_start)

    def _fill(self, name: str, out: memoryview) -> None:
        self._file.seek(self._data_start + self._begins[name])
        got = self._file.readinto(out)
        self._check_filled(name, got, len(out))

    def _read_header(self) -> dict[str, Any]:
        size = size_of(self._file)
        self._file.seek(0)
        length = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
        self._data_start = _LENGTH_BYTES + length
        if self._data_start > size:
            raise CheckpointError(
                f"{self.path} announces a header of {length} bytes but has only {size} bytes in "
                f"all: it is truncated or not a safetensors file; {AGAIN}"
            )
        if length > MAX_INDEX_BYTES:
            raise CheckpointError(
                f"{self.path} has a header of {length} bytes, at most {MAX_INDEX_BYTES} are read: "
                "it is not a MARS5 checkpoint"
            )
        raw = self._file.read(length)
        check_count(self.path, raw.count(b'"data_offsets"'))  # before anything is built of them
        header = strict_json(raw, f"{self.path}: the header")
        if not isinstance(header, dict):
            raise CheckpointError(f"{self.path}: the header must be a JSON object; {AGAIN}")
        return header

    def _read_texts(self, metadata: Any) -> dict[str, str]:
        if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
            raise CheckpointError(f"{self.path}: {_METADATA} must map names to texts; {AGAIN}")
        return metadata

    def _read_entry(self, name: str, item: Any) -> tuple[TensorInfo, int]:
        where = f"{self.path}: tensor {shown(name)}"
        if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"{where} must state dtype, shape and data_offsets; {AGAIN}")
        kind, offsets = item["dtype"], item["data_offsets"]
        if not isinstance(kind, str) or kind not in FLOATS:
            raise CheckpointError(
                f"{where} is of type {shown(kind)}, weights must be one of {', '.join(FLOATS)}: "
                "save the model in one of these"
            )
        info = TensorInfo(FLOATS[kind], checked_shape(item["shape"], where))
        if not _whole_numbers(offsets, 0) or len(offsets) != 2:
            raise CheckpointError(f"{where} must have two data_offsets of at least 0; {AGAIN}")
        if offsets[1] - offsets[0] != info.nbytes:
            raise CheckpointError(
                f"{where} spans {offsets[1] - offsets[0]} bytes, but {kind} of shape {info.shape} "
                f"takes {info.nbytes}; {AGAIN}"
            )
        return info, offsets[0]

    def _check_cover(self, data_bytes: int) -> None:
        """Every byte after the header belongs to exactly one tensor."""
        end = 0
        for name, begin in sorted(self._begins.items(), key=lambda item: item[1]):
            if begin != end:
                fault = "overlaps the tensor before it" if begin < end else "leaves a gap before it"
                raise CheckpointError(f"{self.path}: tensor {shown(name)} {fault}; {AGAIN}")
            end += self.entries[name].nbytes
        if end != data_bytes:
            fault = "is truncated" if end > data_bytes else "has trailing bytes"
            raise CheckpointError(
                f"{self.path} {fault}: its tensors take {end} bytes, {data_bytes} follow the "
                f"header; {AGAIN}"
            )


@contextmanager
def open_unchanged(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading; its size and time of change must stay as they are.

    Raises:
        CheckpointError: it cannot be opened, is empty or too large, or changed until the end.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise CheckpointError(f"{path} is not a file: give the path of a checkpoint file")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be opened: {error}; check the path") from error
    with file:
        before = os.fstat(file.fileno())
        if not 0 < before.st_size <= MAX_FILE_BYTES:
            raise CheckpointError(
                f"{path} has {before.st_size} bytes, a checkpoint has 1 to {MAX_FILE_BYTES}; "
                f"{AGAIN}"
            )
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise CheckpointError(f"{path} changed while it was read; load it again")


def sniff(path: Path, file: BufferedReader) -> Literal["safetensors", "pt"]:
    """The format of an open file, by content; its suffix plays no part.

    Raises:
        CheckpointError: a Git LFS pointer, a web page, or a `.pt` of before torch 1.6.
    """
    file.seek(0)
    head = file.read(512)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file it points to: run `git lfs pull` there, "
            "or download the file itself"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGES):
        raise CheckpointError(
            f"{path} is a web page, not a checkpoint: the download was answered with a page; "
            "download the file from its direct link"
        )
    if head.startswith(b"PK\x03\x04"):
        return "pt"
    is_header = head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if not is_header and (is_pickle or b"ustar" in head):
        raise CheckpointError(
            f"{path} is in PyTorch's format of before 1.6, which cannot be read safely: where "
            "you trust it, load it with torch and save it again, or use the .safetensors file"
        )
    return "safetensors"


def size_of(file: BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def shown(name: Any) -> str:
    """A name from a file, fit for a message."""
    if not isinstance(name, str):
        return f"a {type(name).__name__}"
    return repr(name if len(name) <= 80 else name[:80] + "...")


def check_count(path: Path, n_tensors: int) -> None:
    if n_tensors > MAX_TENSORS:
        raise CheckpointError(
            f"{path} lists {n_tensors} tensors, at most {MAX_TENSORS} are read: it is not a MARS5 "
            "checkpoint"
        )


def checked_shape(shape: Any, where: str) -> tuple[int, ...]:
    if not _whole_numbers(shape, 1) or len(shape) > MAX_AXES:
        raise CheckpointError(
            f"{where} must have a shape of at most {MAX_AXES} whole numbers from 1; {AGAIN}"
        )
    return tuple(shape)


def _whole_numbers(values: Any, low: int) -> bool:
    return isinstance(values, (list, tuple)) and all(
        type(value) is int and low <= value < 2**63 for value in values
    )


def require_finite(path: Path, name: str, tensor: Tensor) -> None:
    # The extremes are NaN as soon as one element is; isfinite() takes 40 times as long.
    if not torch.stack(torch.aminmax(tensor)).isfinite().all():
        raise CheckpointError(
            f"{path}: tensor {shown(name)} holds NaN or Inf as {tensor.dtype}: the checkpoint is "
            "damaged, or its weights do not fit that type"
        )


def strict_json(data: bytes | str, what: str) -> Any:
    """Parsed JSON; raises `CheckpointError` for anything malformed and for a repeated key."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} is not valid JSON: {error}; {AGAIN}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} occurs twice")
        found[key] = value
    return found
