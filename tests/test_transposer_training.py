"""The transposer's training: recordings moved by a rule, pairs, steps."""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import converting, tiny_config, write_tiny_model
from safetensors.numpy import save_file
from torch import Tensor

from mars5 import Mars5TTS
from mars5.config import SAMPLE_RATE
from mars5.conversion.pitch import Register, register
from mars5.conversion.transposer import PITCHES, SPREADS, Shift, Transposer, TransposerDims
from mars5.errors import MissingExtraError, TrainError
from mars5.train import transposer as training
from mars5.train import world
from mars5.train.corpus import Utterance
from mars5.train.loop import Run
from mars5.train.recipe import Workshop

OWN = Register(100.0, 0.1)
CPU = torch.device("cpu")


@pytest.fixture
def system(tmp_path: Path) -> Mars5TTS:
    folder = tmp_path / "own"
    folder.mkdir()
    write_tiny_model(folder, converting(tiny_config()))
    return Mars5TTS.from_pretrained(folder, device="cpu")


def write_shard(path: Path, speechlike: np.ndarray, n: int = 3) -> None:
    pcm = (speechlike * 32767).astype(np.int16)
    rows = [asdict(Utterance("hello you", "rms", i * len(pcm), len(pcm), [])) for i in range(n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"audio": np.tile(pcm, n)}, path, {"utterances": json.dumps(rows)})


@pytest.fixture
def louder_is_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of WORLD: what is moved is the wave, louder by the shift's pitch."""
    monkeypatch.setattr(training, "analyse", lambda wave: wave)
    monkeypatch.setattr(
        training, "transposed", lambda wave, own, shift: wave[:-100] * math.exp(shift.pitch)
    )


def test_the_melody_and_the_formants_move_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def synthesize(*parts: Any) -> np.ndarray:
        given.extend(parts)
        return np.zeros(10)

    monkeypatch.setattr(world, "_world", lambda: SimpleNamespace(synthesize=synthesize))
    f0 = np.array([0.0, 100.0, 110.0, 0.0, 90.0])
    envelope = np.exp(np.linspace(0, 4, 41))[None].repeat(5, 0)
    shift = Shift(math.log(2), math.log(1.5))
    world.transposed(world.Analysis(f0, envelope, np.ones((5, 41))), OWN, shift)
    moved, stretched, noise, rate = given
    assert moved[[0, 3]].tolist() == [0, 0]
    assert moved[1] == pytest.approx(200)
    assert math.log(moved[2] / 200) == pytest.approx(1.5 * math.log(1.1))
    assert math.log(200 / moved[4]) == pytest.approx(1.5 * math.log(1 / 0.9))
    place = 20 * shift.formants
    assert np.interp(place, np.arange(41), np.log(stretched[0])) == pytest.approx(2, abs=0.01)
    assert np.allclose(noise, 1)
    assert rate == SAMPLE_RATE


def test_world_itself_moves_a_voice(speechlike: np.ndarray) -> None:
    pytest.importorskip("pyworld", reason="needs the extra [train]: pip install 'mars5[train]'")
    before = register(torch.from_numpy(speechlike))
    assert before is not None
    moved = world.transposed(world.analyse(speechlike), before, Shift(math.log(1.5)))
    after = register(torch.from_numpy(moved))
    assert after is not None
    assert after.median == pytest.approx(1.5 * before.median, rel=0.05)


def test_without_world_it_says_what_to_install(
    speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mars5\[train\]'"):
        world.analyse(speechlike)


def test_all_shifts_that_can_be_asked_for_are_drawn() -> None:
    rng = random.Random(1)
    drawn = [training.drawn_shift(rng) for _ in range(400)]
    for name, limits in (("pitch", PITCHES), ("spread", SPREADS)):
        values = [getattr(shift, name) for shift in drawn]
        low, high = map(math.log, limits)
        assert low <= min(values) < low + 0.05
        assert high - 0.05 < max(values) <= high


@pytest.mark.usefixtures("louder_is_higher")
def test_pairs_hold_what_the_nar_says_and_what_was_moved(
    system: Mars5TTS, speechlike: np.ndarray, tmp_path: Path
) -> None:
    shard, target = tmp_path / "own-00000.safetensors", tmp_path / "pairs.safetensors"
    write_shard(shard, speechlike)
    training.pair_shard(system.engine, shard, OWN, target)
    written = target.stat().st_mtime_ns
    training.pair_shard(system.engine, shard, OWN, target)  # there already
    assert target.stat().st_mtime_ns == written
    pairs = training.read_pairs([target])
    assert len(pairs) == 3 * training.SHIFTS
    codec = training.mel_codec(system.engine)
    recorded = codec.log_mel(codec.levelled(torch.from_numpy(speechlike)[None]))[0]
    for pair in pairs:
        assert pair.sound.shape == pair.wanted.shape
        assert len(pair.sound) == pytest.approx(len(recorded), abs=1)
        spoken = slice(0, len(recorded) - 5)
        off = (pair.wanted.float()[spoken] - recorded[spoken]).abs().mean()
        assert off < 0.05  # brought to one level, louder is the same
    assert len({tuple(pair.shift.tolist()) for pair in pairs}) == len(pairs)


def made_up_pairs(n: int) -> list[training.Pair]:
    """What is wanted is the sound, raised by the shift's pitch."""
    generator = torch.Generator().manual_seed(n)
    sounds = torch.randn(n, 140, 12, generator=generator)
    shifts = torch.randn(n, 2, generator=generator)
    return [
        training.Pair(sound.half(), (sound + shift[0]).half(), shift)
        for sound, shift in zip(sounds, shifts, strict=True)
    ]


def test_it_learns_the_rule(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = Transposer(TransposerDims(12, dim=24, ff_dim=48, n_layers=1))
    checks = [next(training.batches(made_up_pairs(20), 7))]

    def held_out() -> Tensor:
        with torch.no_grad():
            return training.distances(model, checks[0], CPU)

    before = held_out()
    run = Run(tmp_path, "transposer", model, 0.05, 1e-2)
    stream = training.batches(made_up_pairs(40), 1)
    training.train_transposer(model, run, stream, checks, CPU)
    assert held_out() < 0.7 * before
    assert run.seen == run.step * training.BATCH * training.CUT_FRAMES


def test_pairs_need_recordings_of_the_own_voice(
    system: Mars5TTS, speechlike: np.ndarray, tmp_path: Path
) -> None:
    shop = Workshop(tmp_path / "work")
    for number in range(2):
        write_shard(shop.folder / "corpus" / f"plain-0000{number}.safetensors", speechlike)
    with pytest.raises(TrainError, match="no shards of the cast 'own'"):
        shop.pairs(tmp_path / "own")
    silent = tmp_path / "silent.safetensors"
    write_shard(silent, np.zeros_like(speechlike))
    with pytest.raises(TrainError, match="nothing is voiced"):
        training.own_register([silent])
