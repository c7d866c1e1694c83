"""Entry points of `torch.hub`: `torch.hub.load(repo, "mars5_english", ...)`."""

from __future__ import annotations

import os
from typing import Any

import torch

from mars5 import InferenceConfig, Mars5TTS

dependencies = [
    "torch",
    "numpy",
    "safetensors",
    "soundfile",
    "soxr",
    "regex",
    "num2words",
    "huggingface_hub",
    "tqdm",
]


def mars5_english(
    pretrained: bool = True,
    progress: bool = True,
    device: str | torch.device | None = None,
    ckpt_format: str = "safetensors",
    ar_path: str | os.PathLike[str] | None = None,
    nar_path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[Mars5TTS, type[InferenceConfig]]:
    """MARS5 English and its settings class.

    Args:
        pretrained: only True; kept for callers that pass it.
        progress: show a bar while the published weights are downloaded.
        device: as in `Mars5TTS.from_pretrained`.
        ckpt_format: "safetensors" or "pt", for the published release assets.
        ar_path, nar_path: local checkpoint files to use instead.
        options: further keywords of `Mars5TTS.from_files`, such as dtype.
    """
    from pathlib import Path

    from mars5 import hub
    from mars5.errors import ConfigError

    if ckpt_format not in hub.FORMATS:
        raise ConfigError(f"ckpt_format must be one of {hub.FORMATS}, got {ckpt_format!r}")
    if not pretrained:
        raise ConfigError("pretrained=False is not supported: untrained weights say nothing")
    if (ar_path is None) != (nar_path is None):
        raise ConfigError("give both ar_path and nar_path, or neither")
    if ar_path is not None and nar_path is not None:
        files = hub.beside(Path(ar_path), Path(nar_path))
    else:
        ar, nar = (hub.release_asset(kind, ckpt_format, progress) for kind in ("ar", "nar"))
        files = hub.ModelFiles(ar, nar)
    return Mars5TTS.from_files(files, device=device, **options), InferenceConfig
