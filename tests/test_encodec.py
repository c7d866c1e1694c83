"""EnCodec's encoder against Meta's package, in whole and in chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoint_files import encodec_weights
from oracles import oracle
from torch import Tensor

from mars5 import encodec
from mars5.encodec import build_encodec
from mars5.errors import CheckpointError


def their_model() -> Any:
    torch.manual_seed(1)
    model = oracle("encodec").EncodecModel.encodec_model_24khz(pretrained=False).eval()
    model.set_target_bandwidth(6.0)
    for book in model.quantizer.vq.layers:
        book._codebook.embed.normal_(std=0.01)
        book._codebook.inited.fill_(1)
    for name, parameter in model.named_parameters():
        if name.endswith("weight_g"):
            parameter.data *= 1.5  # so that the norms of g and v differ
    return model


@pytest.mark.parametrize("samples", [1, 5, 319, 320, 321, 640, 3 * 960, 3 * 960 + 1, 5000])
@torch.no_grad()
def test_codes_are_those_of_the_package(samples: int) -> None:
    model = their_model()
    codec = build_encodec(model.state_dict())
    wave = torch.randn(2, samples) * 0.3
    ((wanted, _),) = model.encode(wave[:, None])
    found = codec.encode(wave)
    assert torch.equal(found, wanted.transpose(1, 2))
    torch.testing.assert_close(codec.encoder(wave[:, None]), model.encoder(wave[:, None]))


def test_names_are_those_of_the_package() -> None:
    model = their_model()
    theirs = {k: v.shape for k, v in model.state_dict().items() if k.startswith("encoder.")}
    ours = {k: v.shape for k, v in encodec_weights().items() if k.startswith("encoder.")}
    assert ours == theirs


@torch.no_grad()
def test_codes_are_those_that_the_package_gave() -> None:
    """Recorded of encodec 0.1.1 with the same weights, for where it cannot be imported."""
    t = torch.arange(1500) / 24_000
    wave = 0.3 * (2 * torch.pi * 220 * t).sin() * (2 * torch.pi * 3 * t).sin()
    wave += 0.1 * (2 * torch.pi * 1730 * t).sin()
    assert build_encodec(encodec_weights()).encode(wave[None])[0].tolist() == [
        [176, 424, 490, 334, 890, 320, 768, 736],
        [190, 406, 490, 334, 890, 4, 768, 810],
        [885, 288, 883, 334, 552, 431, 707, 12],
        [204, 288, 324, 920, 565, 431, 707, 972],
        [669, 346, 681, 466, 565, 826, 913, 972],
    ]


@pytest.mark.parametrize("samples", [1, 319, 960, 961, 5000])
@torch.no_grad()
def test_in_chunks_as_in_one(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = build_encodec(encodec_weights())
    wave = torch.randn(1, samples) * 0.3
    wanted, whole = codec.encode(wave), codec.encoder[: codec.at_audio_rate](wave[:, None])
    assert wanted.shape == (1, -(-samples // 320), 8)
    monkeypatch.setattr(encodec, "CHUNK", 3)
    assert torch.equal(codec.encode(wave), wanted)
    convolutions = codec.encoder[: codec.at_audio_rate]
    torch.testing.assert_close(encodec.in_chunks(convolutions, wave[:, None]), whole)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder.model.0.conv.conv.weight_g", None),
        ("encoder.model.13.lstm.bias_hh_l1", None),
        ("quantizer.vq.layers.7._codebook.embed", None),
        ("encoder.model.15.conv.conv.bias", torch.zeros(3)),
        ("encoder.model.16.conv.conv.bias", torch.zeros(3)),
    ],
)
def test_other_weights_are_refused(name: str, change: Tensor | None) -> None:
    weights = encodec_weights()
    if change is None:
        del weights[name]
    else:
        weights[name] = change
    with pytest.raises(CheckpointError, match=r"these are not the weights of EnCodec 24 kHz: .+"):
        build_encodec(weights)
