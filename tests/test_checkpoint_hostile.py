"""Hostile `.pt` files and files of other kinds are refused, by row of the fault list."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    CONFIG,
    N_SPEECH,
    N_TEXT,
    PICKLE,
    SPEECH,
    TEXTS,
    pt_file,
    pt_records,
    read,
    tiny_weights,
    with_pickle,
)

from mars5 import safefile
from mars5.checkpoint import load_pair, write_checkpoint
from mars5.errors import CheckpointError, TokenizerError
from mars5.tokenizers import TextTokenizer


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_foreign_global_is_never_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("retried"))
    torch.save({"vocab": TEXTS, "model": _Touch(tmp_path / "owned")}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="names '"):
        read(tmp_path / "x.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"ctorch\nload\n.", "torch.load"),
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "builtins.bytearray"),
        (b"X\x01\x00\x00\x00a)R.", "calls something"),
        (b"}K\x01K\x02s.", "not named entries"),
        (b"}))\x86K\x01s.", "not named entries"),
        (b")\x85" + b"\x85" * 100_000 + b".", "must hold a dict"),
        (b"}r\xff\xff\xff\x7f.", "must hold a dict"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"]q\x00h\x00a.", "EMPTY_LIST"),
        (b"\x86.", "damaged"),
        (b"t.", "damaged"),
        (b"h\x05.", "damaged"),
        (b"}", "damaged"),
        (b"N" * 1_000_001 + b".", "instructions"),
    ],
)
def test_a_pickle_can_only_describe_tensors(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(with_pickle(tmp_path / "x.pt", b"\x80\x02" + body))


@pytest.mark.parametrize(
    "root",
    [
        [],
        {"model": {}},
        {"vocab": TEXTS},
        {"vocab": {"texttok.model": 1}, "model": {}},
        {"vocab": TEXTS, "model": torch.ones(1)},
        {"vocab": TEXTS, "model": {"w": 1.0}},
        {"vocab": TEXTS, "model": {"w": {"w": torch.ones(1)}}},
        {"vocab": TEXTS, "model": {"w": torch.arange(3)}},
        {"vocab": TEXTS, "model": {"w": torch.ones(0)}},
        {"vocab": TEXTS, "model": {"w": torch.ones(2, 3).T}},
        {"vocab": TEXTS, "model": {"w": torch.ones(1).expand(1_000_000, 1_000_000)}},
    ],
)
def test_other_contents_of_a_pt(tmp_path: Path, root: Any) -> None:
    torch.save(root, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"K\x04t", b"J\x00\x00\x00\x10t", "claims a storage of 268435456 elements"),
        (b"K\x04t", b"K\x03t", "claims a storage of 3 elements"),
        (b"K\x04\x85", b"K\x05\x85", "exceeds its storage"),
        (b"QK\x00", b"QK\x01", "exceeds its storage"),
        (b"QK\x00", b"QJ\xff\xff\xff\xff", "exceeds its storage"),
        (b"K\x04\x85", b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85", "exceeds its storage"),
    ],
)
def test_sizes_that_lie(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    plain = pt_records()[PICKLE]
    assert plain.count(old) == 1
    with pytest.raises(CheckpointError, match=message):
        read(with_pickle(tmp_path / "x.pt", plain.replace(old, new)))


def test_one_storage_under_a_thousand_names(tmp_path: Path) -> None:
    shared = torch.ones(100_000)
    torch.save({"vocab": TEXTS, "model": {str(k): shared[:] for k in range(1000)}}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="at most twice"):
        read(tmp_path / "x")


def test_deflate_bomb(tmp_path: Path) -> None:
    records = pt_records() | {"archive/data/0": bytes(64_000_000)}
    path = pt_file(tmp_path / "x.pt", records, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed from"):
        read(path)


def test_directories_that_lie(tmp_path: Path) -> None:
    plain = pt_file(tmp_path / "x.pt", pt_records())
    content = plain.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    big = content[: end + 12] + (2**31).to_bytes(4, "little") + content[end + 16 :]
    for damaged in (big, content[:-1], content[: len(content) // 2], content + b"PK\x05\x06"):
        plain.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"directory|truncated"):
            read(plain)


def test_flipped_weights_of_a_pt_are_noticed(tmp_path: Path) -> None:
    path = pt_file(tmp_path / "x.pt", pt_records())
    assert read(path)["w"].tolist() == [0, 1, 2, 3]
    stored = torch.arange(4).half().numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(stored, stored[::-1]))
    with pytest.raises(CheckpointError, match="CRC"):
        read(path)


def test_content_decides_not_the_suffix(pair: tuple[Path, Path], tmp_path: Path) -> None:
    weights = read(pair[0])
    torch.save({"vocab": TEXTS, "model": weights}, tmp_path / "really_pt.safetensors")
    really_safetensors = pair[0].rename(tmp_path / "really_safetensors.pt")
    for path in (tmp_path / "really_pt.safetensors", really_safetensors):
        assert all(torch.equal(x, weights[name]) for name, x in read(path).items())


def test_formats_that_are_neither(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"vocab": TEXTS, "model": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before 1\.6"):
        read(path)
    path.write_bytes(pickle.dumps(TEXTS))
    with pytest.raises(CheckpointError, match=r"before 1\.6"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"data\.pkl"):
        read(path)


@pytest.mark.parametrize("change", ["longer", "touched", "shorter"])
def test_file_changed_while_loading(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fill = safefile.SafetensorsFile._fill

    def meddle(self: safefile.SafetensorsFile, name: str, out: memoryview) -> None:
        if change == "longer":
            pair[0].write_bytes(pair[0].read_bytes() + b"x")
        elif change == "touched":
            os.utime(pair[0], ns=(1, 1))
        else:
            os.truncate(pair[0], 100)
        fill(self, name, out)

    monkeypatch.setattr(safefile.SafetensorsFile, "_fill", meddle)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load_pair(*pair)


def test_vocabulary_and_embedding_rows(pair: tuple[Path, Path]) -> None:
    longer = TextTokenizer([(97, 98), (98, 97)], {"<|startoftext|>": 258, "<|endoftext|>": 259})
    ar, nar = tiny_weights()
    write_checkpoint(pair[0], ar, longer, SPEECH, CONFIG)
    write_checkpoint(pair[1], nar, longer, SPEECH, CONFIG)
    with pytest.raises(TokenizerError, match=f"{N_TEXT + N_SPEECH} rows"):
        load_pair(*pair)
    config = replace(
        CONFIG,
        ar=replace(CONFIG.ar, n_vocab=N_TEXT + 1 + N_SPEECH),
        nar=replace(CONFIG.nar, n_text_vocab=N_TEXT + 2),
    )
    with pytest.raises(TokenizerError, match=rf"embed\.weight has {N_TEXT + N_SPEECH} rows"):
        load_pair(*pair, config=config)
