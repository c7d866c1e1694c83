"""EnCodec's encoder and quantiser (https://arxiv.org/abs/2210.13438, section 3): waves to codes.

The 24 kHz model at 6 kbps, for the published weights. Only what makes codes of a wave is here;
Vocos makes waves of codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.codec import residual_codes
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, SAMPLE_RATE
from mars5.errors import CheckpointError

HOP = 320
WIDTH = 32  # channels after the first convolution; each stride doubles them
STRIDES = (2, 4, 5, 8)
N_FEATURES = 128
# Frames that the convolutions at the audio's rate read at once, and of what came before: they see
# 478 samples back and none ahead.
CHUNK = 10 * 75
CONTEXT = 2


class CausalConv(nn.Conv1d):
    """A convolution that sees nothing ahead; in front of its input stands that input's mirror."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', ceil(T / stride))."""
        (kernel,), (stride,) = self.kernel_size, self.stride
        return super().forward(_mirrored(x, kernel - stride, -x.shape[2] % stride))


def _mirrored(x: Tensor, before: int, behind: int) -> Tensor:
    """Pad (B, C, T) by reflection; too short a wave is thought to end in zeros."""
    missing = max(0, max(before, behind) + 1 - x.shape[2])
    padded = F.pad(F.pad(x, (0, missing)), (before, behind), mode="reflect")
    return padded[..., : padded.shape[2] - missing]


class Residual(nn.Module):
    """Two convolutions beside a third of one sample."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(), CausalConv(width, width // 2, 3), nn.ELU(), CausalConv(width // 2, width, 1)
        )
        self.shortcut = CausalConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class Recurrence(nn.Module):
    """Two recurrent layers, added to what they read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(x.transpose(1, 2))[0].transpose(1, 2)


class EncodecCodec(nn.Module):
    """EnCodec 24 kHz at 6 kbps."""

    name = "encodec"
    frame_rate = SAMPLE_RATE / HOP

    def __init__(self) -> None:
        super().__init__()
        width = WIDTH
        layers: list[nn.Module] = [CausalConv(1, width, 7)]
        for stride in STRIDES:
            down = CausalConv(width, 2 * width, 2 * stride, stride)
            layers += [Residual(width), nn.ELU(), down]
            width *= 2
        self.at_audio_rate = len(layers)
        layers += [Recurrence(width), nn.ELU(), CausalConv(width, N_FEATURES, 7)]
        self.encoder = nn.Sequential(*layers)
        self.register_buffer("codebooks", torch.zeros(N_CODEBOOKS, CODEBOOK_SIZE, N_FEATURES))
        self.codebooks: Tensor

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, T) float32 at 24 kHz -> (B, ceil(T / 320), 8) int64 codes in 0..1023."""
        # What takes memory is the convolutions in front of the recurrent layers.
        features = in_chunks(self.encoder[: self.at_audio_rate], wave[:, None])
        features = self.encoder[self.at_audio_rate :](features)
        return residual_codes(features.transpose(1, 2), self.codebooks)


def in_chunks(convolutions: nn.Module, wave: Tensor) -> Tensor:
    """(B, 1, T) -> (B, C, ceil(T / hop)) by causal convolutions, with bounded memory."""
    parts = []
    frames = -(-wave.shape[2] // HOP)
    for start in range(0, frames, CHUNK):
        before = min(start, CONTEXT)
        samples = slice((start - before) * HOP, (start + CHUNK) * HOP)
        parts.append(convolutions(wave[..., samples])[..., before:])
    return torch.cat(parts, -1)


def build_encodec(weights: dict[str, Tensor]) -> EncodecCodec:
    """EnCodec with its published weights, `encodec_24khz-d7cc33bc.th`.

    Raises:
        CheckpointError: other weights than those.
    """
    codec = EncodecCodec()
    try:
        codec.load_state_dict(_ours(weights))
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"these are not the weights of EnCodec 24 kHz: {error}") from error
    return codec.eval()


def _ours(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors that are needed, by our names, weight normalisation multiplied out."""
    books = [weights[f"quantizer.vq.layers.{q}._codebook.embed"] for q in range(N_CODEBOOKS)]
    ours = {"codebooks": torch.stack(books)}
    for name, tensor in weights.items():
        if not name.startswith("encoder.") or name.endswith(".weight_g"):
            continue
        if name.endswith(".weight_v"):
            length = tensor.flatten(1).norm(dim=1)[:, None, None]
            tensor = tensor * (weights[f"{name[:-1]}g"] / length)
            name = name.removesuffix("_v")
        ours[name.replace("encoder.model.", "encoder.").replace(".conv.conv.", ".")] = tensor
    return ours
