"""PyTorch's zip format (`.pt`), read without `torch.load`, tensor by tensor.

A `.pt` is a zip of one pickle, the index, and one record of raw bytes per storage. Each claim of
the pickle is compared with its record before anything is read.
"""

from __future__ import annotations

import math
import struct
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from mars5.errors import CheckpointError
from mars5.ptpickle import ForeignPickleError, PickledStorage, PickledTensor, read_pickle
from mars5.safefile import (
    AGAIN,
    MAX_INDEX_BYTES,
    TensorInfo,
    WeightFile,
    check_count,
    checked_shape,
    shown,
    size_of,
)

MAX_DIRECTORY_BYTES = 2 * 1024**2
_REMEDY = "use the .safetensors file, or load it with torch where you trust it and save it again"
_PLAIN_FLAGS = 0x808  # sizes behind the data, UTF-8 names; torch writes both, and no other
_END = struct.Struct("<4s8xLL2x")
_END64_PLACE = struct.Struct("<4s4xQ4x")
_END64 = struct.Struct("<4s36xQ8x")


class PtFile(WeightFile):
    """A `.pt` of the published structure: `{'vocab': {name: text}, 'model': {...}}`.

    Args:
        bare: the file holds a state dict alone, as the weights of EnCodec and Vocos do.

    Raises:
        CheckpointError: not such a file; it is compressed; its pickle names anything but plain
            float tensors; tensors and records do not agree.
    """

    def __init__(self, path: Path, file: BufferedReader, bare: bool = False) -> None:
        self.path = path
        self._file_bytes = size_of(file)
        self._check_directory(file)
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # a hostile directory makes zipfile raise many kinds
            raise CheckpointError(f"{path} is a damaged zip: {error}; {AGAIN}") from error
        self._sizes = self._check_records()
        root = self._unpickle(self._read_index())
        if bare:
            root = {"vocab": {}, "model": root}
        self.texts = self._read_texts(root)
        self.entries = {}
        self._places: dict[str, tuple[str, int]] = {}
        for name, tensor in self._model(root).items():
            self.entries[name], self._places[name] = self._read_entry(name, tensor)
        self._check_total()

    def _fill(self, name: str, out: memoryview) -> None:
        data = self._read_record(*self._places[name], len(out))
        self._check_filled(name, len(data), len(out))
        out[:] = data

    def _check_directory(self, file: BufferedReader) -> None:
        """Bound the zip's directory, which zipfile reads whole, and refuse bytes behind it."""
        span = _END64.size + _END64_PLACE.size + _END.size
        file.seek(max(0, self._file_bytes - span))
        tail = file.read(span).rjust(span, b"\0")
        mark, size, _start = _END.unpack_from(tail, span - _END.size)
        mark64, place64 = _END64_PLACE.unpack_from(tail, _END64.size)
        if mark64 == b"PK\x06\x07":
            begin64, size = _END64.unpack_from(tail)
            if begin64 != b"PK\x06\x06" or place64 != self._file_bytes - span:
                mark = b""
        if mark != b"PK\x05\x06":
            raise CheckpointError(f"{self.path} is truncated or not a .pt file: {AGAIN}")
        if size > MAX_DIRECTORY_BYTES:
            raise CheckpointError(
                f"{self.path} has a zip directory of {size} bytes, at most {MAX_DIRECTORY_BYTES} "
                "are read: it is not a MARS5 checkpoint"
            )

    def _check_records(self) -> dict[str, int]:
        """Sizes by name of records that are stored as they are and fit into the file."""
        records = self._zip.infolist()
        check_count(self.path, len(records))
        for record in records:
            stored = record.compress_type == zipfile.ZIP_STORED
            if not stored or record.file_size != record.compress_size:
                raise CheckpointError(
                    f"{self.path}: record {shown(record.filename)} is compressed from "
                    f"{record.file_size} to {record.compress_size} bytes; checkpoints are not, "
                    f"because that hides their size: {_REMEDY}"
                )
            if record.flag_bits & ~_PLAIN_FLAGS:
                raise CheckpointError(
                    f"{self.path}: record {shown(record.filename)} is encrypted or patched: "
                    f"{_REMEDY}"
                )
        sizes = {record.filename: record.file_size for record in records}
        if len(sizes) != len(records) or sum(sizes.values()) > self._file_bytes:
            raise CheckpointError(f"{self.path}: its records repeat or overlap: {AGAIN}")
        return sizes

    def _read_index(self) -> bytes:
        found = [name for name in self._sizes if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise CheckpointError(
                f"{self.path} is a zip with {len(found)} records named data.pkl, a .pt file has "
                "one: give the path of a checkpoint"
            )
        if self._sizes[found[0]] > MAX_INDEX_BYTES:
            raise CheckpointError(
                f"{self.path}: data.pkl has {self._sizes[found[0]]} bytes, at most "
                f"{MAX_INDEX_BYTES} are read: it is not a MARS5 checkpoint"
            )
        self._prefix = found[0].removesuffix("data.pkl")
        order = f"{self._prefix}byteorder"
        if order in self._sizes and self._read_record(order) != b"little":
            raise CheckpointError(f"{self.path} is of a big-endian machine: {_REMEDY}")
        return self._read_record(found[0])

    def _read_record(self, name: str, start: int = 0, length: int = -1) -> bytes:
        try:
            with self._zip.open(name) as stream:  # read to its end, its checksum is compared
                if start:
                    stream.seek(start)
                return stream.read(length)
        except Exception as error:  # damaged local headers make zipfile raise many kinds
            raise CheckpointError(f"{self.path}: {shown(name)}: {error}; {AGAIN}") from error

    def _unpickle(self, data: bytes) -> Any:
        try:
            return read_pickle(data)
        except ForeignPickleError as error:
            raise CheckpointError(f"{self.path}: its pickle {error}: {_REMEDY}") from error
        except Exception as error:  # a malformed pickle can make the unpickler raise any kind
            raise CheckpointError(
                f"{self.path}: its pickle is damaged ({type(error).__name__}: {error}); {AGAIN}"
            ) from error

    def _read_texts(self, root: Any) -> dict[str, str]:
        vocab = root.get("vocab") if isinstance(root, dict) else None
        if not isinstance(vocab, dict) or not all(isinstance(x, str) for x in vocab.values()):
            raise CheckpointError(
                f"{self.path} must hold a dict with 'vocab', a dict of tokenizer texts, and "
                "'model', a state dict: it is not a MARS5 checkpoint"
            )
        return vocab

    def _model(self, root: dict[str, Any]) -> dict[str, Any]:
        model = root.get("model")
        if not isinstance(model, dict):
            raise CheckpointError(
                f"{self.path}: 'model' must be a state dict, tensors by name: it is not a MARS5 "
                "checkpoint"
            )
        check_count(self.path, len(model))
        return model

    def _read_entry(self, name: str, tensor: Any) -> tuple[TensorInfo, tuple[str, int]]:
        where = f"{self.path}: tensor {shown(name)}"
        if not isinstance(tensor, PickledTensor) or not isinstance(tensor.storage, PickledStorage):
            raise CheckpointError(f"{where} is not a plain tensor: {_REMEDY}")
        dtype, key, numel = tensor.storage
        record = f"{self._prefix}data/{key}" if isinstance(key, str) else ""
        if not isinstance(dtype, torch.dtype) or type(numel) is not int:
            raise CheckpointError(f"{where} has a damaged storage; {AGAIN}")
        if self._sizes.get(record) != numel * dtype.itemsize:
            raise CheckpointError(
                f"{where} claims a storage of {numel} elements, its record has "
                f"{self._sizes.get(record, 0)} bytes; {AGAIN}"
            )
        info = TensorInfo(dtype, checked_shape(tensor.shape, where))
        if type(tensor.offset) is not int or not (
            0 <= tensor.offset <= numel - math.prod(info.shape)
        ):
            raise CheckpointError(f"{where} of shape {info.shape} exceeds its storage; {AGAIN}")
        if not _is_contiguous(info.shape, tensor.stride):
            raise CheckpointError(
                f"{where} is a strided view, weights must be contiguous: make it contiguous and "
                "save it again"
            )
        return info, (record, tensor.offset * dtype.itemsize)

    def _check_total(self) -> None:
        """Tied weights share a storage; thousands that do would multiply the file."""
        total = sum(info.nbytes for info in self.entries.values())
        if total > 2 * self._file_bytes:
            raise CheckpointError(
                f"{self.path} has {self._file_bytes} bytes, but its tensors make {total} of them; "
                "at most twice the size is read: it is not a MARS5 checkpoint"
            )


def _is_contiguous(shape: tuple[int, ...], stride: Any) -> bool:
    if not isinstance(stride, tuple) or len(stride) != len(shape):
        return False
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True
