"""Checkpoints: written and read back unchanged."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    CONFIG,
    SPEECH,
    TEXT,
    TEXTS,
    read,
    tiny_weights,
)
from safetensors.torch import load_file
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.checkpoint import convert, load_pair, read_checkpoint, write_checkpoint
from mars5.errors import CheckpointError
from mars5.nar.model import FLOAT32_PARTS, ResidualTransformer


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


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="it is a device or a pipe, not a file"):
        write_checkpoint(path, {"w": torch.ones(1)}, TEXT, SPEECH, None)
    assert path.is_fifo()


def test_only_safetensors_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must end in"):
        write_checkpoint(tmp_path / "x.pt", {"w": torch.ones(1)}, TEXT, SPEECH, None)
