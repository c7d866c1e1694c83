"""Vocoder and codecs: real arithmetic against the packages' own, parts against the whole."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import encodec_weights
from conftest import CODEC_DIMS, VOCODER_DIMS
from oracles import oracle
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mars5 import vocoder as vocoders
from mars5.audio import load_reference
from mars5.codec import MelCodec, MelCodecDims
from mars5.encodec import build_encodec
from mars5.errors import CheckpointError
from mars5.fourier import InverseSTFT, Magnitudes, mel_filters
from mars5.hub import NANO
from mars5.vocoder import Backbone, Head, Vocoder, VocoderDims, build_vocoder

READER = Path(__file__).parent.parent / "examples" / "reader.wav"


class NoneComplex(TorchDispatchMode):
    """Fails at the first complex tensor, and at `fold`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert "col2im" not in str(func)
        result = func(*args, **(kwargs or {}))
        assert not (isinstance(result, Tensor) and result.is_complex()), func
        return result


def tiny_vocoder(**changes: int) -> Vocoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        dims = VocoderDims(**{**VOCODER_DIMS, "n_layers": 2, **changes})
        vocoder = Vocoder(dims, 8192).requires_grad_(False).eval()
        for parameter in vocoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
        vocoder.table.normal_()
    return vocoder


def random_codes(frames: int, rows: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(1024, (rows, frames, 8), generator=generator)


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize("n_bandwidths", [0, 4])
@torch.no_grad()
def test_the_backbone_is_that_of_vocos(n_bandwidths: int) -> None:
    dims = VocoderDims(**{**VOCODER_DIMS, "n_layers": 3, "n_bandwidths": n_bandwidths})
    sizes = dims.channels, dims.dim, dims.ff_dim, dims.n_layers
    theirs = oracle("vocos.models").VocosBackbone(
        *sizes, adanorm_num_embeddings=n_bandwidths or None
    )
    for parameter in theirs.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    ours = Backbone(dims)
    ours.load_state_dict(theirs.state_dict())
    x, chosen = torch.randn(2, dims.channels, 30), torch.tensor([2])
    assert torch.equal(ours(x, chosen), theirs(x, bandwidth_id=chosen if n_bandwidths else None))
    others = ours(x, torch.tensor([1]))
    assert torch.equal(others, ours(x, chosen)) == (n_bandwidths == 0)


# ---------------------------------------------------------------- the head


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7, 8, 9, 100])
@pytest.mark.parametrize(("n_fft", "hop"), [(1280, 320), (64, 16), (64, 32), (60, 16)])
@torch.no_grad()
def test_the_head_is_that_of_vocos(frames: int, n_fft: int, hop: int) -> None:
    torch.manual_seed(frames)
    theirs = oracle("vocos.heads").ISTFTHead(24, n_fft, hop, padding="same")
    ours = Head(VocoderDims(dim=24, n_fft=n_fft, hop=hop))
    theirs.istft.window += 1e-3 * torch.rand(n_fft)  # whatever window was stored
    ours.load_state_dict(theirs.state_dict())
    x = 3 * torch.randn(2, frames, 24)
    wanted = theirs(x)
    assert wanted.shape == (2, frames * hop)
    with NoneComplex():
        found = ours(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_magnitudes_are_held_back() -> None:
    head = Head(VocoderDims(dim=8, n_fft=64, hop=16))
    theirs = oracle("vocos.heads").ISTFTHead(8, 64, 16, padding="same")
    theirs.load_state_dict(head.state_dict())
    x = torch.full((1, 3, 8), 1000.0)
    with torch.no_grad():
        torch.testing.assert_close(head(x), theirs(x), rtol=0, atol=1e-2)
        assert head(x).isfinite().all()


@pytest.mark.parametrize("changes", [{"n_fft": 1281}, {"n_fft": 318}])
def test_transforms_that_cannot_be(changes: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match="must be even and at least hop"):
        VocoderDims(**changes)


# ---------------------------------------------------------------- parts and whole


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("n_bandwidths", [0, 4])
@torch.no_grad()
def test_parts_equal_the_whole(stack: int, n_bandwidths: int) -> None:
    vocoder = tiny_vocoder(stack=stack, n_bandwidths=n_bandwidths)
    codes = random_codes(70, rows=2)
    samples = 320 * stack
    whole = vocoder(codes)
    assert vocoder.context == -(-(3 * 3 + 2) // stack)
    for start, stop in ((0, 1), (0, 70), (20, 21), (13, 60), (60, 70), (69, 70)):
        part = vocoder.span(vocoder.features(codes), start, stop)
        wanted = whole[:, start * samples : stop * samples]
        torch.testing.assert_close(part, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_context_is_no_longer_than_needed() -> None:
    """The furthest frame that a span reads does matter, and the one beyond does not."""
    vocoder, codes = tiny_vocoder(stack=1), random_codes(60)
    wanted, reach = vocoder(codes)[:, 30 * 320 : 31 * 320], vocoder.context
    for distance, changes in ((reach, True), (reach + 1, False)):
        for place in (30 - distance, 30 + distance):
            other = codes.clone()
            other[0, place] = (other[0, place] + 500) % 1024
            found = vocoder(other)[:, 30 * 320 : 31 * 320]
            assert torch.equal(found, wanted) != changes


@torch.no_grad()
def test_long_speech_is_vocoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, codes = tiny_vocoder(), random_codes(70)
    whole = vocoder(codes)
    sizes: list[int] = []
    synthesise = vocoder.synthesise
    monkeypatch.setattr(
        vocoder, "synthesise", lambda x: (sizes.append(x.shape[2]), synthesise(x))[1]
    )
    monkeypatch.setattr(vocoders, "CHUNK_FRAMES", 16)
    torch.testing.assert_close(vocoder(codes), whole, rtol=0, atol=1e-5)
    assert len(sizes) == 5
    assert max(sizes) <= 2 * (16 + 2 * vocoder.context)


# ---------------------------------------------------------------- codecs


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 320), (64, 16)])
def test_magnitudes_are_those_of_the_fourier_transform(n_fft: int, hop: int) -> None:
    wave = torch.randn(2, 5000, generator=torch.Generator().manual_seed(1))
    window = torch.hann_window(n_fft)
    wanted = torch.stft(wave, n_fft, hop, window=window, center=False, return_complex=True).abs()
    with NoneComplex():
        found = Magnitudes(n_fft, hop)(wave)
    # Relative: the last bit of the largest magnitudes differs from CPU to CPU.
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=1e-6, atol=3e-5)


def test_magnitudes_of_silence_have_a_slope() -> None:
    wave = torch.zeros(1, 200, requires_grad=True)
    Magnitudes(64, 16)(wave).sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()


def test_there_and_back_is_the_same() -> None:
    """Analysis by torch, synthesis by us: frames that overlap enough give the wave again."""
    wave = torch.randn(1, 1600, generator=torch.Generator().manual_seed(2))
    padded = F.pad(wave, (24, 24))
    window = torch.hann_window(64)
    spectrum = torch.stft(padded, 64, 16, window=window, center=False, return_complex=True)
    found = InverseSTFT(64, 16)(spectrum.abs().transpose(1, 2), spectrum.angle().transpose(1, 2))
    torch.testing.assert_close(found, wave, rtol=0, atol=1e-5)


def _codes_by_stft(codec: MelCodec, wave: Tensor) -> Tensor:
    """The slow oracle: torch's complex transform."""
    d = codec.dims
    wave = codec.levelled(wave)
    frames, side = -(-wave.shape[1] // d.hop), (d.n_fft - d.hop) // 2
    wave = F.pad(wave, (side, side + frames * d.hop - wave.shape[1]))
    window = torch.hann_window(d.n_fft)
    spectrum = torch.stft(wave, d.n_fft, d.hop, window=window, center=False, return_complex=True)
    mel = spectrum.abs().transpose(1, 2)[:, :frames] @ codec.filters
    mel = (mel.clamp(min=d.floor) / d.floor).log()
    mel = F.pad(mel, (0, 0, 0, -mel.shape[1] % d.stack))
    return codec.quantise(
        (mel.unflatten(1, (-1, d.stack)).flatten(2) - codec.mean) @ codec.projection
    )


def test_codes_of_the_embedded_codec_do_not_change() -> None:
    from mars5 import Mars5TTS

    codec = Mars5TTS.from_pretrained(NANO, device="cpu").codec
    assert isinstance(codec, MelCodec)
    wave = load_reference(READER)[None]
    for part in (wave, wave[:, :24_001], wave[:, 50_000:50_700]):
        with NoneComplex():
            found = codec.encode(part)
        assert torch.equal(found, _codes_by_stft(codec, part))


def test_the_path_of_sound_has_no_complex_numbers(speechlike: np.ndarray) -> None:
    codec = MelCodec(MelCodecDims(**CODEC_DIMS))
    for buffer in codec.state_dict().values():
        buffer.normal_()
    with NoneComplex(), torch.no_grad():
        codes = codec.encode(torch.from_numpy(speechlike)[None])
        tiny_vocoder()(codes)


def test_encodec_needs_no_complex_numbers() -> None:
    with NoneComplex(), torch.no_grad():
        assert build_encodec(encodec_weights()).encode(torch.randn(1, 5000)).shape == (1, 16, 8)


@pytest.mark.parametrize(("n_fft", "n_mels"), [(1024, 80), (512, 12), (2048, 128)])
def test_mel_filters_are_those_of_torchaudio(n_fft: int, n_mels: int) -> None:
    wanted = oracle("torchaudio.functional").melscale_fbanks(
        n_fft // 2 + 1, 0.0, 12_000.0, n_mels, 24_000, norm="slaney", mel_scale="slaney"
    )
    assert torch.equal(mel_filters(n_fft // 2 + 1, n_mels, 24_000), wanted)


def test_mel_filters_peak_where_slaney_put_them() -> None:
    """Evenly below 1 kHz, in a constant ratio above; each has an area of 1."""
    filters = mel_filters(4097, 80, 24_000)
    peaks = filters.argmax(0) * 24_000 / 8192
    low, high = peaks[peaks < 980], peaks[peaks > 1020]
    assert low.diff().max() - low.diff().min() < 2 * 24_000 / 8192  # as finely as there are bins
    assert peaks[9] == pytest.approx(10 * peaks[0].item(), abs=10 * 24_000 / 8192)
    torch.testing.assert_close(high.log().diff()[-20:].std(), torch.tensor(0.0), rtol=0, atol=1e-3)
    step = (15 + 27 * math.log(12) / math.log(6.4)) / 81  # mel from each to the next
    assert high[-1] / high[-2] == pytest.approx(6.4 ** (step / 27), abs=1e-3)
    torch.testing.assert_close(filters.sum(0) * 24_000 / 8192, torch.ones(80), rtol=0, atol=2e-2)


def test_odd_transforms_of_a_codec() -> None:
    with pytest.raises(CheckpointError, match=r"MelCodecDims\.n_fft must be even, got 1023"):
        MelCodecDims(n_fft=1023)


def test_sizes_beyond_the_weights_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mars5.vocoder.Vocoder", lambda *_: pytest.fail("built"))
    config = {**VOCODER_DIMS, "dim": 8192, "ff_dim": 8192, "n_layers": 64}
    with pytest.raises(CheckpointError, match=r"states 8589934592 weights .* the file has 4"):
        build_vocoder(config, {"head.out.bias": torch.zeros(4)}, torch.zeros(8192, 12))
