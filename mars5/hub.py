"""Where files come from: inside the package, a folder, the hub, release assets. No parsing.

A model is named by "nano" (the embedded checkpoint), a folder, or a hub repository "owner/name".
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from mars5.errors import CheckpointError, ConfigError, HubError

NANO = "nano"
VOCOS_REPO = "charactr/vocos-encodec-24khz"
VOCOS_FILE = "pytorch_model.bin"
ENCODEC_FILE = "encodec_24khz-d7cc33bc.th"
ENCODEC_URL = f"https://dl.fbaipublicfiles.com/encodec/v0/{ENCODEC_FILE}"
ENCODEC_SHA256 = "d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf"
RELEASES = "https://github.com/Camb-ai/MARS5-TTS/releases/download"
RELEASE_ASSETS = {
    "ar": f"{RELEASES}/v0.4/mars5_en_checkpoints_ar-3000000",
    "nar": f"{RELEASES}/v0.3/mars5_en_checkpoints_nar-1980000",
}
FORMATS = ("safetensors", "pt")
CODEC_FILE = "mars5_codec.safetensors"
VOICE_FILE = "default.voice.safetensors"

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one system.

    Attributes:
        codec: the checkpoint's own codec and vocoder; None for EnCodec and Vocos.
        voice: a voice to speak with when none is given; None if the model brings none.
    """

    ar: Path
    nar: Path
    codec: Path | None = None
    voice: Path | None = None


def check_options(options: dict[str, Any]) -> None:
    """Refuse keywords that `huggingface_hub.hf_hub_download` does not have, such as typos.

    Raises:
        ConfigError: naming the unknown ones.
    """
    if not options:
        return
    from huggingface_hub.file_download import hf_hub_download

    unknown = options.keys() - inspect.signature(hf_hub_download).parameters.keys()
    if unknown:
        raise ConfigError(f"unknown keywords: {', '.join(sorted(unknown))}")


def find(model: str | os.PathLike[str], **hub_options: Any) -> ModelFiles:
    """The files of `model`.

    Args:
        hub_options: keywords of `huggingface_hub.hf_hub_download` (revision, cache_dir, token,
            local_files_only, force_download, ...), used for hub repositories only.

    Raises:
        CheckpointError: a folder lacks a file.
        HubError: no such folder, or the hub could not give the files.
    """
    if model == NANO:
        return in_folder(Path(__file__).parent / "nano")
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else model
    if isinstance(name, str) and _is_folder(name):
        return in_folder(Path(name))
    if not isinstance(name, str) or not _is_repository(name):
        raise HubError(
            f"{name!r:.200} is neither 'nano', nor a folder here, nor a hub repository "
            "'owner/name': name one of these"
        )
    ar, nar = (hub_file(name, f"mars5_{kind}.safetensors", **hub_options) for kind in ("ar", "nar"))
    return ModelFiles(
        ar,
        nar,
        optional_hub_file(name, CODEC_FILE, **hub_options),
        optional_hub_file(name, VOICE_FILE, **hub_options),
    )


def is_known_place(name: str) -> bool:
    """Whether a name means a folder here or, there or not, a hub repository."""
    return _is_folder(name) or _is_repository(name)


def _is_repository(name: str) -> bool:
    return _REPO.fullmatch(name) is not None and ".." not in name


def _is_folder(name: str) -> bool:
    try:
        return name != "" and Path(name).is_dir()
    except (OSError, ValueError):  # too long a name, a zero byte
        return False


def in_folder(folder: Path) -> ModelFiles:
    """The files of a checkpoint folder: `mars5_ar`, `mars5_nar`, and what else it brings."""

    def pick(kind: str) -> Path:
        for suffix in FORMATS:
            candidate = folder / f"mars5_{kind}.{suffix}"
            if candidate.is_file():
                return candidate
        raise CheckpointError(
            f"{folder} holds neither mars5_{kind}.safetensors nor mars5_{kind}.pt: "
            "name a folder with both models"
        )

    return beside(pick("ar"), pick("nar"))


def beside(ar: Path, nar: Path) -> ModelFiles:
    """Two model files, with the codec and the voice that lie in the folder of the first."""
    codec, voice = ar.parent / CODEC_FILE, ar.parent / VOICE_FILE
    return ModelFiles(
        ar, nar, codec if codec.is_file() else None, voice if voice.is_file() else None
    )


def hub_file(repo: str, filename: str, **options: Any) -> Path:
    """A file of a hub repository, from the cache or downloaded.

    Raises:
        HubError: it could not be had; the message tells how to work offline.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, filename, **options))
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise HubError(
            f"{filename} of {repo} could not be had from the hub ({type(error).__name__}: "
            f"{reason}). Offline, put the files in a folder and name it, or use the embedded "
            "model 'nano'"
        ) from error


def optional_hub_file(repo: str, filename: str, **options: Any) -> Path | None:
    """As `hub_file`, but None if the repository, or the cache when offline, has no such file."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return hub_file(repo, filename, **options)
    except HubError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def release_asset(kind: str, ckpt_format: str, progress: bool = False) -> Path:
    """The published release asset of `kind` "ar" or "nar", from torch's hub cache or downloaded.

    Raises:
        HubError: an unknown format, or the download failed.
    """
    if ckpt_format not in FORMATS:
        raise HubError(f"ckpt_format must be one of {', '.join(FORMATS)}, got {ckpt_format!r}")
    return _download(f"{RELEASE_ASSETS[kind]}.{ckpt_format}", progress)


def encodec_file(local_files_only: bool = False) -> Path:
    """EnCodec's published weights, checked against their sha256.

    Args:
        local_files_only: take them from torch's hub cache, never download.

    Raises:
        HubError: the download failed, or the file is not the published one.
    """
    path = cache_folder() / ENCODEC_FILE
    if local_files_only and not path.is_file():
        raise HubError(f"EnCodec's weights, {ENCODEC_URL}, are not at {path}")
    path = _download(ENCODEC_URL)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()  # 89 MB
    if digest != ENCODEC_SHA256:
        raise HubError(
            f"{path} has sha256 {digest[:16]}..., expected {ENCODEC_SHA256[:16]}...: delete it "
            "and try again"
        )
    return path


def vocos_file(**options: Any) -> Path:
    """The published Vocos weights; raises `HubError` if they cannot be had."""
    return hub_file(VOCOS_REPO, VOCOS_FILE, **options)


def cache_folder() -> Path:
    """Torch's folder for downloaded weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(url: str, progress: bool = False) -> Path:
    import torch

    target = cache_folder() / url.rsplit("/", 1)[1]
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Writes to a temporary file and moves it into place.
        torch.hub.download_url_to_file(url, str(target), progress=progress)
    except (OSError, HTTPException) as error:
        raise HubError(
            f"{url} could not be downloaded ({error}). Offline, put the file at {target}, "
            "or use the embedded model 'nano'"
        ) from error
    return target
