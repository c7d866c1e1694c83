"""Checkpoints: written and read back unchanged, and refused when damaged or hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mars5 import ptpickle, safefile
from mars5.ar.model import CodecLM
from mars5.checkpoint import convert, load_pair, read_checkpoint, write_checkpoint
from mars5.config import ARDims, ModelConfig, NARDims
from mars5.errors import CheckpointError, Mars5Error, TokenizerError
from mars5.nar.model import FLOAT32_PARTS, ResidualTransformer
from mars5.tokenizers import SpeechTokenizer, TextTokenizer

TEXT = TextTokenizer([(97, 98)], {"<|startoftext|>": 257, "<|endoftext|>": 258})
SPEECH = SpeechTokenizer([], {"<|endofspeech|>": 1024})
N_TEXT, N_SPEECH = len(TEXT), len(SPEECH)
CONFIG = ModelConfig(
    ARDims(N_TEXT + N_SPEECH, 16, 2, 1, 12, 1, 12),
    NARDims(N_TEXT + 1, 1025, 16, 2, 1, 1, 1, 12, 10),
    facts={"name": "tiny"},
)
TEXTS = {"texttok.model": TEXT.to_text(), "speechtok.model": SPEECH.to_text()}
PICKLE = "archive/data.pkl"
_Target = TypeVar("_Target", Path, io.BytesIO)
ITEM = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def tiny_weights(half: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    ar, nar = CodecLM(CONFIG.ar).state_dict(), ResidualTransformer(CONFIG.nar).state_dict()
    if half:
        return {k: v.half() for k, v in ar.items()}, {k: v.half() for k, v in nar.items()}
    return ar, nar


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "ar.safetensors", tmp_path / "nar.safetensors"
    for path, weights in zip(paths, tiny_weights(), strict=True):
        write_checkpoint(path, weights, TEXT, SPEECH, CONFIG)
    return paths


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """A safetensors file of a header that is free to lie."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return path


def pt_records() -> dict[str, bytes]:
    """The records of a `.pt` with the one tensor w = [0, 1, 2, 3], float16."""
    plain = io.BytesIO()
    torch.save({"vocab": TEXTS, "model": {"w": torch.arange(4).half()}}, plain)
    with zipfile.ZipFile(plain) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pt_file(path: _Target, records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> _Target:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return path


def with_pickle(path: Path, data: bytes) -> Path:
    return pt_file(path, pt_records() | {PICKLE: data})


def read(path: Path) -> dict[str, Tensor]:
    return read_checkpoint(path).weights


# --- what works ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    weights = {"a.b": torch.randn(3, 5).to(dtype), "scalar": torch.tensor(2.0, dtype=dtype)}
    write_checkpoint(path, weights, TEXT, SPEECH, CONFIG)
    found = read_checkpoint(path)
    assert found.config == CONFIG
    assert found.text_tokenizer.to_text() == TEXT.to_text()
    assert found.speech_tokenizer.to_text() == SPEECH.to_text()
    by_library = load_file(path)
    assert found.weights.keys() == weights.keys() == by_library.keys()
    for name, tensor in weights.items():
        assert found.weights[name].dtype == dtype
        assert torch.equal(found.weights[name], tensor)
        assert torch.equal(by_library[name], tensor)
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_config_none_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.safetensors", {"w": torch.ones(1)}, TEXT, SPEECH, None)
    assert read_checkpoint(tmp_path / "x.safetensors").config is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_pair_is_ready_for_inference(pair: tuple[Path, Path], dtype: torch.dtype) -> None:
    before = torch.get_rng_state()
    models = load_pair(*pair, dtype=dtype)
    assert torch.equal(torch.get_rng_state(), before)
    assert models.config == CONFIG
    for model, weights in zip((models.ar, models.nar), tiny_weights(), strict=True):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        for name, tensor in model.state_dict().items():
            wide = model is models.nar and any(part in name for part in FLOAT32_PARTS)
            wanted = torch.float32 if wide else dtype
            assert tensor.dtype == wanted
            assert torch.equal(tensor, weights[name].to(wanted))


def test_the_config_argument_wins_and_the_published_sizes_come_last(
    pair: tuple[Path, Path],
) -> None:
    shorter = replace(CONFIG, ar=replace(CONFIG.ar, sliding_window=7))
    assert load_pair(*pair, config=shorter).ar.dims.sliding_window == 7
    for path, weights in zip(pair, tiny_weights(), strict=True):
        write_checkpoint(path, weights, TEXT, SPEECH, None)
    with pytest.raises(CheckpointError, match="config="):
        load_pair(*pair)
    assert load_pair(*pair, config=CONFIG).config == CONFIG


def test_a_pt_gives_the_same_models_and_converts(pair: tuple[Path, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = CodecLM(CONFIG.ar).half(), ResidualTransformer(CONFIG.nar).half()
    pts = tmp_path / "ar.pt", tmp_path / "nar.pt"
    torch.save({"vocab": TEXTS, "model": models[0].state_dict()}, pts[0])
    parameters = dict(models[1].named_parameters())
    torch.save({"vocab": TEXTS, "model": parameters}, pts[1])
    one, other = load_pair(*pair), load_pair(*pts, config=CONFIG)
    for a, b in ((one.ar, other.ar), (one.nar, other.nar)):
        assert all(torch.equal(b.state_dict()[name], x) for name, x in a.state_dict().items())
    for index, pt in enumerate(pts):
        convert(pt, pair[index])
        found = read_checkpoint(pair[index])
        assert found.config is None
        assert found.text_tokenizer.to_text() == TEXT.to_text()
        expected = tiny_weights()[index]
        assert found.weights.keys() == expected.keys()
        assert all(torch.equal(x, expected[name]) for name, x in found.weights.items())


def test_tied_weights_of_a_pt_come_apart(tmp_path: Path) -> None:
    both = torch.arange(6.0)
    torch.save({"vocab": TEXTS, "model": {"a": both, "b": both[2:4]}}, tmp_path / "x.pt")
    weights = read(tmp_path / "x.pt")
    weights["a"].zero_()
    assert weights["b"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"w": torch.tensor([1.0, float("nan")])}, "NaN"),
        ({"w": torch.arange(3)}, "int64"),
        ({"w": torch.empty(0, 4)}, "0 elements"),
    ],
)
def test_nothing_is_written_that_would_be_refused(
    tmp_path: Path, weights: dict[str, Tensor], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"old": torch.ones(1)}, TEXT, SPEECH, None)
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(path, weights, TEXT, SPEECH, None)
    assert read(path).keys() == {"old"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"old": torch.ones(1)}, TEXT, SPEECH, None)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="no space"):
        write_checkpoint(path, {"new": torch.ones(1)}, TEXT, SPEECH, None)
    assert read(path).keys() == {"old"}
    assert list(tmp_path.iterdir()) == [path]


def test_only_safetensors_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must end in"):
        write_checkpoint(tmp_path / "x.pt", {"w": torch.ones(1)}, TEXT, SPEECH, None)


# --- what is refused -------------------------------------------------------------------------


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", tmp_path / "nul\0"):
        with pytest.raises(CheckpointError, match=r"not a file|cannot be opened"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"1234567"])
def test_row_01_empty_and_seven_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{len(content)} bytes"):
        read(tmp_path / "x")


@pytest.mark.parametrize("length", [3, 100, 2**63, 2**64 - 1])
def test_row_02_header_beyond_the_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match=f"header of {length} bytes"):
        read(tmp_path / "x")


def test_row_03_header_over_100_mb(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{")
        file.truncate(200_000_000)  # sparse
    with pytest.raises(CheckpointError, match="header of 100000001 bytes, at most"):
        read(tmp_path / "x")


def test_row_04_truncated_data(pair: tuple[Path, Path]) -> None:
    pair[0].write_bytes(pair[0].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        read(pair[0])


def test_row_05_trailing_bytes(pair: tuple[Path, Path]) -> None:
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
def test_row_06_overlaps_and_overflows(tmp_path: Path, change: Any, message: str) -> None:
    second = ITEM | {"data_offsets": [8, 16]} | change
    path = raw(tmp_path / "x", {"__metadata__": TEXTS, "a": ITEM, "b": second}, bytes(16))
    with pytest.raises(CheckpointError, match=message):
        read(path)


@pytest.mark.parametrize("count", [10_001, 300_000])
def test_row_07_too_many_tensors_are_not_even_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    items = (f'"{k}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' for k in range(count))
    path = raw(tmp_path / "x", ("{" + ",".join(items) + "}").encode(), bytes(4))
    monkeypatch.setattr(safefile, "strict_json", lambda *_: pytest.fail("parsed"))
    with pytest.raises(CheckpointError, match="at most"):
        read(path)


def test_row_08_duplicate_keys(tmp_path: Path) -> None:
    item = json.dumps(ITEM)
    path = raw(tmp_path / "x", f'{{"twice": {item}, "twice": {item}}}'.encode(), bytes(8))
    with pytest.raises(CheckpointError, match="'twice' occurs twice"):
        read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_row_09_nan_and_inf_are_named(tmp_path: Path, suffix: str, value: float) -> None:
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


def test_row_09_weights_that_overflow_in_the_wanted_type(pair: tuple[Path, Path]) -> None:
    for path, weights in zip(pair, tiny_weights(half=False), strict=True):
        weights["spk_identity_emb.weight"][0, 0] = 1e6
        write_checkpoint(path, weights, TEXT, SPEECH, CONFIG)
    load_pair(*pair)
    with pytest.raises(CheckpointError, match=r"float16"):
        load_pair(*pair, dtype=torch.float16)


@pytest.mark.parametrize("metadata", [None, {}, {"texttok.model": TEXTS["texttok.model"]}])
def test_row_10_no_metadata(tmp_path: Path, metadata: Any) -> None:
    header = {"w": ITEM} if metadata is None else {"__metadata__": metadata, "w": ITEM}
    with pytest.raises(CheckpointError, match=r"no metadata '(texttok|speechtok)\.model'"):
        read(raw(tmp_path / "x", header, bytes(8)))


@pytest.mark.parametrize("metadata", [[], "text", {"texttok.model": 5}])
def test_row_10_damaged_metadata(tmp_path: Path, metadata: Any) -> None:
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
def test_row_10_damaged_config(tmp_path: Path, config: str) -> None:
    header = {"__metadata__": TEXTS | {"config": config}, "w": ITEM}
    with pytest.raises(CheckpointError, match="config"):
        read(raw(tmp_path / "x", header, bytes(8)))


def test_row_10_a_damaged_tokenizer_is_named_with_its_file(tmp_path: Path) -> None:
    header = {"__metadata__": TEXTS | {"texttok.model": "minbpe v2"}, "w": ITEM}
    with pytest.raises(TokenizerError, match=r"odd\.safetensors: .*minbpe v1"):
        read(raw(tmp_path / "odd.safetensors", header, bytes(8)))


def test_row_11_missing_extra_and_misshaped_tensors(pair: tuple[Path, Path]) -> None:
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


def test_row_11_a_config_cannot_ask_for_a_million_layers(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = replace(CONFIG, nar=replace(CONFIG.nar, n_dec_layers=1_000_000))
    monkeypatch.setattr("mars5.checkpoint.CodecLM", lambda _: pytest.fail("built"))
    with pytest.raises(CheckpointError, match="1000002 layers"):
        load_pair(*pair, config=huge)


def test_row_12_swapped_or_twice_the_same(pair: tuple[Path, Path]) -> None:
    ar, nar = pair
    with pytest.raises(CheckpointError, match="swapped"):
        load_pair(nar, ar)
    with pytest.raises(CheckpointError, match=r"nar\.safetensors holds a NAR model where the AR"):
        load_pair(nar, nar)
    with pytest.raises(CheckpointError, match=r"ar\.safetensors holds an AR model where the NAR"):
        load_pair(ar, ar)


def test_row_12_files_of_two_systems(pair: tuple[Path, Path]) -> None:
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
def test_row_13_lfs_pointer_and_web_page(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x.safetensors")


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_row_14_a_foreign_global_is_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_row_14_a_pickle_can_only_describe_tensors(
    tmp_path: Path, body: bytes, message: str
) -> None:
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
def test_row_14_other_contents_of_a_pt(tmp_path: Path, root: Any) -> None:
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
def test_row_14_sizes_that_lie(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    plain = pt_records()[PICKLE]
    assert plain.count(old) == 1
    with pytest.raises(CheckpointError, match=message):
        read(with_pickle(tmp_path / "x.pt", plain.replace(old, new)))


def test_row_14_one_storage_under_a_thousand_names(tmp_path: Path) -> None:
    shared = torch.ones(100_000)
    torch.save({"vocab": TEXTS, "model": {str(k): shared[:] for k in range(1000)}}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="at most twice"):
        read(tmp_path / "x")


def test_row_15_deflate_bomb(tmp_path: Path) -> None:
    records = pt_records() | {"archive/data/0": bytes(64_000_000)}
    path = pt_file(tmp_path / "x.pt", records, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed from"):
        read(path)


def test_row_15_directories_that_lie(tmp_path: Path) -> None:
    plain = pt_file(tmp_path / "x.pt", pt_records())
    content = plain.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    big = content[: end + 12] + (2**31).to_bytes(4, "little") + content[end + 16 :]
    for damaged in (big, content[:-1], content[: len(content) // 2], content + b"PK\x05\x06"):
        plain.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"directory|truncated"):
            read(plain)


def test_row_15_flipped_weights_of_a_pt_are_noticed(tmp_path: Path) -> None:
    path = pt_file(tmp_path / "x.pt", pt_records())
    assert read(path)["w"].tolist() == [0, 1, 2, 3]
    stored = torch.arange(4).half().numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(stored, stored[::-1]))
    with pytest.raises(CheckpointError, match="CRC"):
        read(path)


def test_row_16_content_decides_not_the_suffix(pair: tuple[Path, Path], tmp_path: Path) -> None:
    weights = read(pair[0])
    torch.save({"vocab": TEXTS, "model": weights}, tmp_path / "really_pt.safetensors")
    really_safetensors = pair[0].rename(tmp_path / "really_safetensors.pt")
    for path in (tmp_path / "really_pt.safetensors", really_safetensors):
        assert all(torch.equal(x, weights[name]) for name, x in read(path).items())


def test_row_16_formats_that_are_neither(tmp_path: Path) -> None:
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
def test_row_17_file_changed_while_loading(
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


def test_row_25_vocabulary_and_embedding_rows(pair: tuple[Path, Path]) -> None:
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


# --- fuzzing ---------------------------------------------------------------------------------


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
