"""Damaged checkpoints are refused, and the message says by what."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    CONFIG,
    ITEM,
    SPEECH,
    TEXT,
    TEXTS,
    raw,
    read,
    tiny_weights,
)

from mars5 import safefile
from mars5.checkpoint import load_pair, write_checkpoint
from mars5.errors import CheckpointError, TokenizerError
from mars5.tokenizers import TextTokenizer


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", tmp_path / "nul\0"):
        with pytest.raises(CheckpointError, match=r"not a file|cannot be opened"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"1234567"])
def test_empty_and_seven_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{len(content)} bytes"):
        read(tmp_path / "x")


@pytest.mark.parametrize("length", [3, 100, 2**63, 2**64 - 1])
def test_header_beyond_the_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match=f"header of {length} bytes"):
        read(tmp_path / "x")


def test_header_over_100_mb(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{")
        file.truncate(200_000_000)  # sparse
    with pytest.raises(CheckpointError, match="header of 100000001 bytes, at most"):
        read(tmp_path / "x")


def test_truncated_data(pair: tuple[Path, Path]) -> None:
    pair[0].write_bytes(pair[0].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        read(pair[0])


def test_trailing_bytes(pair: tuple[Path, Path]) -> None:
    pair[0].write_bytes(pair[0].read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="trailing bytes"):
        read(pair[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_offsets": [4, 12]}, "overlaps"),
        ({"data_offsets": [12, 20]}, "gap"),
        ({"data_offsets": [8, 17]}, "spans 9 bytes"),
        ({"data_offsets": [16, 8]}, "spans -8 bytes"),
        ({"data_offsets": [-8, 0]}, "data_offsets"),
        ({"data_offsets": [8, 16, 24]}, "data_offsets"),
        ({"data_offsets": [8.0, 16.0]}, "data_offsets"),
        ({"shape": [2**62, 2**62, 4]}, "spans 8 bytes"),
        ({"shape": [2**64 + 2]}, "shape"),
        ({"shape": [-2]}, "shape"),
        ({"shape": [0, 2**40]}, "shape"),
        ({"shape": [True, 2]}, "shape"),
        ({"shape": [1] * 9 + [2]}, "shape"),
        ({"shape": "2"}, "shape"),
        ({"dtype": "I32"}, "'I32'"),
        ({"dtype": 5}, "a int"),
        ({"more": 1}, "must state"),
    ],
)
def test_overlaps_and_overflows(tmp_path: Path, change: Any, message: str) -> None:
    second = ITEM | {"data_offsets": [8, 16]} | change
    path = raw(tmp_path / "x", {"__metadata__": TEXTS, "a": ITEM, "b": second}, bytes(16))
    with pytest.raises(CheckpointError, match=message):
        read(path)


@pytest.mark.parametrize("count", [10_001, 300_000])
def test_too_many_tensors_are_not_even_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    items = (f'"{k}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' for k in range(count))
    path = raw(tmp_path / "x", ("{" + ",".join(items) + "}").encode(), bytes(4))
    monkeypatch.setattr(safefile, "strict_json", lambda *_: pytest.fail("parsed"))
    with pytest.raises(CheckpointError, match="at most"):
        read(path)


def test_too_many_tensors_under_escaped_keys(tmp_path: Path) -> None:
    item = r'{"dtype":"F32","shape":[1],"data\u005foffsets":[0,4]}'
    items = (f'"{k}":{item}' for k in range(10_001))
    path = raw(tmp_path / "x", ("{" + ",".join(items) + "}").encode(), bytes(4))
    with pytest.raises(CheckpointError, match="lists 10001 tensors, at most 10000"):
        read(path)


def test_duplicate_keys(tmp_path: Path) -> None:
    item = json.dumps(ITEM)
    path = raw(tmp_path / "x", f'{{"twice": {item}, "twice": {item}}}'.encode(), bytes(8))
    with pytest.raises(CheckpointError, match="'twice' occurs twice"):
        read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_nan_and_inf_are_named(tmp_path: Path, suffix: str, value: float) -> None:
    weights = {"fine": torch.ones(2), "broken.weight": torch.tensor([[1.0, value], [0.0, 2.0]])}
    path = tmp_path / f"x.{suffix}"
    if suffix == "pt":
        torch.save({"vocab": TEXTS, "model": weights}, path)
    else:
        header = {"fine": ITEM, "broken.weight": ITEM | {"shape": [4], "data_offsets": [8, 24]}}
        data = b"".join(x.numpy().tobytes() for x in weights.values())
        raw(path, {"__metadata__": TEXTS, **header}, data)
    with pytest.raises(CheckpointError, match=r"'broken\.weight' holds NaN or Inf"):
        read(path)


def test_weights_that_overflow_in_the_wanted_type(pair: tuple[Path, Path]) -> None:
    for path, weights in zip(pair, tiny_weights(half=False), strict=True):
        weights["spk_identity_emb.weight"][0, 0] = 1e6
        write_checkpoint(path, weights, TEXT, SPEECH, CONFIG)
    load_pair(*pair)
    with pytest.raises(CheckpointError, match=r"float16"):
        load_pair(*pair, dtype=torch.float16)


@pytest.mark.parametrize("metadata", [None, {}, {"texttok.model": TEXTS["texttok.model"]}])
def test_no_metadata(tmp_path: Path, metadata: Any) -> None:
    header = {"w": ITEM} if metadata is None else {"__metadata__": metadata, "w": ITEM}
    with pytest.raises(CheckpointError, match=r"no metadata '(texttok|speechtok)\.model'"):
        read(raw(tmp_path / "x", header, bytes(8)))


@pytest.mark.parametrize("metadata", [[], "text", {"texttok.model": 5}])
def test_damaged_metadata(tmp_path: Path, metadata: Any) -> None:
    with pytest.raises(CheckpointError, match="must map names to texts"):
        read(raw(tmp_path / "x", {"__metadata__": metadata, "w": ITEM}, bytes(8)))


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"ar": {}, "nar": {}}',
        '{"ar": 1, "nar": 2}',
        '{"ar": 1, "ar": 2}',
        json.dumps(CONFIG.to_json() | {"ar": {"n_vocab": 1e9}}),
    ],
)
def test_damaged_config(tmp_path: Path, config: str) -> None:
    header = {"__metadata__": TEXTS | {"config": config}, "w": ITEM}
    with pytest.raises(CheckpointError, match="config"):
        read(raw(tmp_path / "x", header, bytes(8)))


def test_a_damaged_tokenizer_is_named_with_its_file(tmp_path: Path) -> None:
    header = {"__metadata__": TEXTS | {"texttok.model": "minbpe v2"}, "w": ITEM}
    with pytest.raises(TokenizerError, match=r"odd\.safetensors: .*minbpe v1"):
        read(raw(tmp_path / "odd.safetensors", header, bytes(8)))


def test_missing_extra_and_misshaped_tensors(pair: tuple[Path, Path]) -> None:
    weights, _ = tiny_weights()
    gone = [weights.pop(f"ref_chunked_emb.embs.{q}.weight") for q in range(3)]
    weights["unheard.of"] = gone[0]
    weights["ar.norm.weight"] = torch.ones(17)
    weights["spk_encoder.norm.bias"] = torch.ones(17)
    write_checkpoint(pair[0], weights, TEXT, SPEECH, CONFIG)
    with pytest.raises(CheckpointError) as caught:
        load_pair(*pair)
    message = str(caught.value)
    assert str(pair[0]) in message
    assert all(f"'ref_chunked_emb.embs.{q}.weight' is missing" in message for q in range(3))
    assert "'unheard.of' is not part of the model" in message
    assert "has shape (17,) instead of (16,)" in message
    assert "and 1 more" in message


def test_a_config_cannot_ask_for_a_million_layers(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = replace(CONFIG, nar=replace(CONFIG.nar, n_dec_layers=1_000_000))
    monkeypatch.setattr("mars5.checkpoint.CodecLM", lambda _: pytest.fail("built"))
    with pytest.raises(CheckpointError, match="1000002 layers"):
        load_pair(*pair, config=huge)


def test_swapped_or_twice_the_same(pair: tuple[Path, Path]) -> None:
    ar, nar = pair
    with pytest.raises(CheckpointError, match="swapped"):
        load_pair(nar, ar)
    with pytest.raises(CheckpointError, match=r"nar\.safetensors holds a NAR model where the AR"):
        load_pair(nar, nar)
    with pytest.raises(CheckpointError, match=r"ar\.safetensors holds an AR model where the NAR"):
        load_pair(ar, ar)


def test_files_of_two_systems(pair: tuple[Path, Path]) -> None:
    _, nar = tiny_weights()
    other = TextTokenizer([(98, 97)], TEXT.specials)
    write_checkpoint(pair[1], nar, other, SPEECH, CONFIG)
    with pytest.raises(CheckpointError, match=r"differ in 'texttok\.model'"):
        load_pair(*pair)
    write_checkpoint(pair[1], nar, TEXT, SPEECH, replace(CONFIG, facts={}))
    with pytest.raises(CheckpointError, match="differ in 'config'"):
        load_pair(*pair)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\xef\xbb\xbf<HTML lang=en>", "web page"),
    ],
)
def test_lfs_pointer_and_web_page(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x.safetensors")
