"""Damaged checkpoint files raise nothing unexpected and hold no memory."""

from __future__ import annotations

import io
import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    CONFIG,
    PICKLE,
    SPEECH,
    TEXT,
    pt_file,
    pt_records,
    read,
)

from mars5 import ptpickle
from mars5.checkpoint import write_checkpoint
from mars5.errors import Mars5Error


def mutated(content: bytes, end: int, rng: random.Random) -> bytes:
    """Change, cut out, double or insert bytes before position `end`."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(max(1, min(end, len(out))))
        match rng.randrange(5):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at : at + rng.randrange(1, 9)]
            case 2:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case 3:
                out[at : at + 1] = rng.choice(
                    (b"9" * 30, b"[" * 50, b'"', b"-1", b"{}", b"\\ud800")
                )
            case _:
                del out[max(at, 1) :]
    return bytes(out)


def n_refused(path: Path, contents: Iterator[bytes]) -> int:
    """Read each content as a file at `path`; any error but a Mars5Error goes through."""
    refused, before = 0, peak_mib()
    with path.open("wb", buffering=0) as file:  # opened once: that is the slow part
        for content in contents:
            file.seek(0)
            file.write(content)
            file.truncate()
            try:
                read(path)
            except Mars5Error:
                refused += 1
    assert peak_mib() - before < 64
    return refused


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def test_20_000_fuzzed_headers_raise_nothing_else_and_hold_no_memory(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "x.safetensors"
    weights = {"a.weight": torch.ones(2, 3), "b": torch.ones(4).half()}
    write_checkpoint(path, weights, TEXT, SPEECH, CONFIG)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    assert n_refused(path, (mutated(content, end, rng) for _ in range(10_000))) > 5000

    def resized(header: bytes) -> bytes:  # with the right length, so that it is parsed
        return len(header).to_bytes(8, "little") + header + content[end:]

    headers = (resized(mutated(content[8:end], end - 8, rng)) for _ in range(10_000))
    assert n_refused(path, headers) > 5000


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_fuzzed_pickles_and_zips_raise_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(0)
    records = pt_records()
    pickled = records[PICKLE]
    content = pt_file(tmp_path / "x.pt", records).read_bytes()

    def zipped(data: bytes) -> bytes:
        buffer = io.BytesIO()
        pt_file(buffer, records | {PICKLE: data})
        return buffer.getvalue()

    zips = (mutated(content, len(content), rng) for _ in range(4000))
    assert n_refused(tmp_path / "x.pt", zips) > 2000
    pickles = (zipped(mutated(pickled, len(pickled), rng)) for _ in range(4000))
    assert n_refused(tmp_path / "x.pt", pickles) > 2000


def test_random_pickles_raise_nothing_unexpected() -> None:
    rng = random.Random(0)
    alphabet = [
        b"}", b")", b"(", b"K\x01", b"q\x00", b"h\x00", b"\x85", b"\x86", b"t", b"R", b"s", b"u",
        b"b", b"Q", b"X\x01\x00\x00\x00a", b"N", b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nHalfStorage\n",
    ]  # fmt: skip
    finished = 0
    for _ in range(20_000):
        program = b"".join(rng.choices(alphabet, k=rng.randrange(1, 12))) + b"."
        try:
            ptpickle.read_pickle(program)
            finished += 1
        except (ptpickle.ForeignPickleError, ValueError, TypeError, LookupError):
            pass
    assert 100 < finished < 20_000
