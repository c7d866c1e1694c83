"""The facts of `mars5 doctor`: packages, devices, room, and whether a model can be loaded.

Nothing is downloaded, and what is missing becomes a line of the report.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mars5 import __version__, hub
from mars5.errors import HubError, Mars5Error

if TYPE_CHECKING:
    from mars5.profiles import Profile
    from mars5.tts import Mars5TTS

PACKAGES = ("torch", "safetensors", "huggingface_hub", "soundfile", "soxr", "num2words")
# What is imported of each extra, here or by speechmos.
EXTRAS = {
    "eval": (
        *("faster_whisper", "whisper_normalizer", "rapidfuzz", "resemblyzer", "speechmos"),
        *("onnxruntime", "matplotlib"),
    ),
    "play": ("sounddevice",),
}
GIB = 2**30


@dataclass(frozen=True)
class Fact:
    """One line of the report; `fatal` if the model cannot be loaded because of it."""

    name: str
    value: str
    fatal: bool = False


def examine(model: str, device: str | None = None) -> Iterator[Fact]:
    """Everything worth knowing when something does not work; never raises a `Mars5Error`.

    Args:
        model, device: as in `Mars5TTS.from_pretrained`; the model is loaded as a trial.
    """
    yield Fact("mars5", f"{__version__} in {Path(__file__).parents[1]}")
    yield Fact("python", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    for package in PACKAGES:
        yield Fact(package, _version(package))
    for name, modules in EXTRAS.items():
        yield Fact(f"mars5[{name}]", _extra(name, modules))
    yield from _devices()
    yield Fact("memory", _free_memory())
    yield from _caches()
    yield from _model(model, device)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"not installed: run `pip install {package}`"


def _extra(name: str, modules: tuple[str, ...]) -> str:
    lacking = [module for module in modules if find_spec(module) is None]
    if not lacking:
        return "installed"
    return f"not installed ({', '.join(lacking)} missing): run `pip install 'mars5[{name}]'`"


def _devices() -> Iterator[Fact]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Fact("devices", f"unknown, torch cannot be imported: {error}")
        return
    yield Fact("cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without it"
        yield Fact("cuda", f"no device (torch is {built})")
    for index in range(torch.cuda.device_count()):
        yield Fact(f"cuda:{index}", _cuda_device(index))
    yield Fact("mps", "available" if torch.backends.mps.is_available() else "no device")


def _cuda_device(index: int) -> str:
    import torch

    try:
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
    except RuntimeError as error:
        return f"not usable: {error}"
    return f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"


def _free_memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines)}
        free, total = (kib[name] * 1024 / GIB for name in ("MemAvailable", "MemTotal"))
    except (OSError, ValueError, LookupError):
        return "unknown on this system"
    return f"{free:.1f} of {total:.1f} GiB free"


def _caches() -> Iterator[Fact]:
    """Where downloads go, what is there, and the room left."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE

        folders = [Path(HF_HUB_CACHE), hub.cache_folder()]
    except (ImportError, OSError) as error:
        yield Fact("cache", f"unknown: {error}")
        return
    for folder in folders:
        existing = next(place for place in (folder, *folder.parents) if place.is_dir())
        room = shutil.disk_usage(existing).free / GIB
        yield Fact("cache", f"{folder} holds {_size(folder)}, {room:.1f} GiB of disk free")


def _size(path: Path) -> str:
    """Of a file or of all files under a folder, without following links."""
    if path.is_file():
        total = path.stat().st_size
    else:
        places = (Path(root, name) for root, _, names in os.walk(path) for name in names)
        total = sum(place.lstat().st_size for place in places)
    return f"{total / 1e9:.2f} GB" if total >= 1e8 else f"{total / 1e6:.2f} MB"


def _model(model: str, device: str | None) -> Iterator[Fact]:
    try:
        files = hub.find(model, local_files_only=True)
        for path in (files.ar, files.nar, files.codec, files.voice):
            if path is not None:
                yield Fact("file", f"{path}, {_size(path)}, sha256 {_sha256_start(path)}")
        yield from _loaded(files, device)
    except (Mars5Error, ImportError, OSError, RuntimeError, MemoryError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        yield Fact("problem", f"{model} cannot be loaded: {problem}", fatal=True)
        if isinstance(error, HubError) and hub.is_known_place(model):
            line = f"mars5 say --model {shlex.quote(model)} Hello."
            yield Fact("remedy", f"online, `{line}` fetches what lacks; this report does not")


def _loaded(files: hub.ModelFiles, device: str | None) -> Iterator[Fact]:
    from mars5.tts import Mars5TTS

    system = Mars5TTS.from_files(files, device=device, local_files_only=True)
    facts = system.config.facts
    for name in ("name", "version", "licence"):
        yield Fact(name, str(facts.get(name, "not stated by the checkpoint")))
    for name, module in (("AR", system.ar), ("NAR", system.nar), ("vocoder", system.vocoder)):
        yield Fact("parameters", f"{name} {sum(p.numel() for p in module.parameters()):,}")
    yield Fact("voice", "its own" if system.default_voice else "none of its own: give a reference")
    yield Fact("verdict", f"the model can be loaded, on {system.device}")
    yield from _speed(system)


def _speed(system: Mars5TTS) -> Iterator[Fact]:
    """A mini benchmark of a few seconds, and the profile that fits."""
    from mars5.commands.minibench import measure, recommend
    from mars5.profiles import PROFILES

    speed = measure(system.engine)
    yield Fact("speed", f"AR {1 / speed.ar_frame:.0f} frames/s, {speed.frame_rate:g} a second")
    times = ", ".join(
        f"{name} {speed.real_time_factor(_passes(system, profile)):.2g}"
        for name, profile in PROFILES.items()
    )
    yield Fact("real time", f"seconds for a second of speech, this model, by profile: {times}")
    profile = recommend(speed)
    yield Fact("profile", f"{profile.name} is recommended: {profile.reason}")


def _passes(system: Mars5TTS, profile: Profile) -> int:
    return len(system.engine.nar_steps(profile.config(system.config)))


def _sha256_start(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:16]
