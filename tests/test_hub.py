"""Where files come from: names, folders, the hub and its failures, torch.hub, published forms."""

from __future__ import annotations

import hashlib
import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import checkpoint_files as files
import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import tiny_config, tiny_tokenizers
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from safetensors.torch import load_file

from mars5 import InferenceConfig, Mars5TTS, hub
from mars5.ar.model import CodecLM
from mars5.checkpoint import write_checkpoint
from mars5.config import ModelConfig
from mars5.encodec import build_encodec
from mars5.errors import CheckpointError, ConfigError, HubError
from mars5.nar.model import ResidualTransformer
from mars5.vocoder import Vocoder, VocoderDims

ROOT = Path(__file__).parent.parent
SETTINGS = InferenceConfig(timesteps=2, generate_max_len_override=60, deep_clone=False)

Download = Callable[..., str]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any download fails the test."""

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise AssertionError(f"a download was tried: {args} {kwargs}")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of torch's for downloaded weights."""
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


# ---------------------------------------------------------------- names and folders


@pytest.mark.usefixtures("offline")
def test_nano_is_inside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[Path] = []
    monkeypatch.setattr(hub, "in_folder", asked.append)
    hub.find("nano")
    hub.find(Path("nano"))  # a path is a folder of the caller's
    assert asked == [Path(hub.__file__).parent / "nano", Path("nano")]


@pytest.mark.usefixtures("offline")
def test_folder(tiny_folder: Path, tmp_path: Path) -> None:
    for name in (tiny_folder, str(tiny_folder)):
        assert hub.find(name) == hub.ModelFiles(
            tiny_folder / "mars5_ar.safetensors",
            tiny_folder / "mars5_nar.safetensors",
            tiny_folder / "mars5_codec.safetensors",
        )
    for name in ("mars5_ar.pt", "mars5_nar.pt", "default.voice.safetensors"):
        (tmp_path / name).touch()
    ar, nar = tmp_path / "mars5_ar.pt", tmp_path / "mars5_nar.pt"
    voice = tmp_path / "default.voice.safetensors"
    assert hub.find(tmp_path) == hub.ModelFiles(ar, nar, None, voice)
    (tmp_path / "mars5_ar.safetensors").touch()
    assert hub.find(tmp_path).ar.suffix == ".safetensors"


@pytest.mark.usefixtures("offline")
def test_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds neither mars5_ar\.safetensors nor"):
        Mars5TTS.from_pretrained(tmp_path)
    (tmp_path / "mars5_ar.pt").touch()
    with pytest.raises(CheckpointError, match=r"holds neither mars5_nar\.safetensors nor"):
        Mars5TTS.from_pretrained(tmp_path)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "name",
    ["../x/y", "a/..", "a/b..c", "a/b/c", "a", "", "/no/such/folder", "a/b ", "a/b\n",
     "https://huggingface.co/a/b", "file:///etc", "a/b?x=1", "a\0/b", "x" * 5000,
     f"{'x' * 97}/y", 5, b"nano"],
)  # fmt: skip
def test_names_of_no_model(name: Any) -> None:
    with pytest.raises(HubError, match="is neither 'nano', nor a folder here, nor a hub repo"):
        Mars5TTS.from_pretrained(name)


# ---------------------------------------------------------------- the hub


def test_hub_keywords_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = []

    def fake(repo: str, filename: str, **options: Any) -> str:
        asked.append((repo, filename, options))
        if filename == hub.CODEC_FILE:
            raise EntryNotFoundError("404")
        return f"/cache/{filename}"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    options = {"revision": "v1", "cache_dir": "/c", "token": "t", "local_files_only": True}
    files = hub.find("CAMB-AI/MARS5-TTS", **options)
    ar, nar = Path("/cache/mars5_ar.safetensors"), Path("/cache/mars5_nar.safetensors")
    assert files == hub.ModelFiles(ar, nar, None, Path("/cache") / hub.VOICE_FILE)
    names = [ar.name, nar.name, hub.CODEC_FILE, hub.VOICE_FILE]
    assert asked == [("CAMB-AI/MARS5-TTS", name, options) for name in names]


def _gated() -> Exception:
    error = GatedRepoError.__new__(GatedRepoError)
    Exception.__init__(error, "403: access is restricted\nmore lines")
    return error


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("not in the cache and offline"),
        OfflineModeIsEnabled("offline mode"),
        HFValidationError("bad repo id"),
        ConnectionError("refused"),
        OSError(28, "No space left on device"),
        _gated(),
        OSError(),
        Exception("whatever its HTTP library raises"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failures_of_the_hub(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    for fetch in (lambda: Mars5TTS.from_pretrained("owner/name"), hub.vocos_file):
        with pytest.raises(HubError, match=type(error).__name__) as caught:
            fetch()
        message = str(caught.value)
        assert "put the files in a folder and name it, or use the embedded model" in message
        assert "more lines" not in message
        assert caught.value.__cause__ is error


def test_keywords_that_the_hub_does_not_take() -> None:
    with pytest.raises(HubError, match=r"TypeError: .*'revison'"):
        hub.find("a/b", revison="main")
    with pytest.raises(HubError, match="of a/b could not be had"):
        hub.find("a/b", repo_type="no such type")


@pytest.mark.usefixtures("offline")
def test_unknown_keywords_are_refused_everywhere(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown keywords: devcie, dtyp"):
        Mars5TTS.from_pretrained(tiny_folder, devcie="cpu", dtyp="float16")
    Mars5TTS.from_pretrained(tiny_folder, device="cpu", local_files_only=True)


# ---------------------------------------------------------------- direct downloads


def test_encodec_with_another_hash_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    path = cache / hub.ENCODEC_FILE
    path.write_bytes(b"not EnCodec")
    with pytest.raises(
        HubError, match=r"expected d7cc33bcf1aad7f2\.\.\.: delete it and try again"
    ) as e:
        hub.encodec_file()
    assert str(path) in str(e.value)
    digest = hashlib.sha256(b"not EnCodec").hexdigest()
    assert digest[:16] in str(e.value)
    monkeypatch.setattr(hub, "ENCODEC_SHA256", digest)
    assert hub.encodec_file() == path


@pytest.mark.parametrize("error", [URLError("no route"), IncompleteRead(b""), OSError(28, "full")])
def test_failures_of_a_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(HubError, match=r"could not be downloaded .*Offline, put the file at"):
        hub.encodec_file()
    with pytest.raises(HubError, match=r"ar-3000000\.pt could not be downloaded"):
        hub.release_asset("ar", "pt")
    assert not list(cache.iterdir())


def test_a_cache_that_is_a_file(cache: Path) -> None:
    cache.write_bytes(b"")
    with pytest.raises(HubError, match="could not be downloaded"):
        hub.release_asset("ar", "pt")


def test_downloads_go_into_the_cache_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def fake(url: str, target: str, progress: bool) -> None:
        asked.append((url, progress))
        Path(target).write_bytes(b"weights")

    monkeypatch.setattr("torch.hub.download_url_to_file", fake)
    for _ in range(2):
        path = hub.release_asset("nar", "safetensors", progress=True)
        assert path == cache / "mars5_en_checkpoints_nar-1980000.safetensors"
    assert asked == [(f"{hub.RELEASE_ASSETS['nar']}.safetensors", True)]


# ---------------------------------------------------------------- torch.hub


def test_torch_hub_is_told_all_that_the_package_imports() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project]")[1]
    core = project.split("\ndependencies = [")[1].split("\n]")[0]
    told = runpy.run_path(str(ROOT / "hubconf.py"))["dependencies"]
    assert told == re.findall(r'^    "([\w-]+)', core, re.MULTILINE)


def _torch_hub(**options: Any) -> Any:
    return torch.hub.load(str(ROOT), "mars5_english", source="local", device="cpu", **options)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("ckpt_format", ["safetensors", "pt"])
def test_torch_hub_with_local_files(
    tiny: Mars5TTS, tiny_folder: Path, speechlike: np.ndarray, ckpt_format: str
) -> None:
    ar, nar = (str(tiny_folder / f"mars5_{kind}.safetensors") for kind in ("ar", "nar"))
    system, config_class = _torch_hub(ar_path=ar, nar_path=nar, ckpt_format=ckpt_format)
    assert config_class is InferenceConfig
    found = system.tts("hello", speechlike, cfg=SETTINGS, seed=1)
    wanted = tiny.tts("hello", speechlike, cfg=SETTINGS, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.usefixtures("offline")
def test_torch_hub_refuses(tiny_folder: Path) -> None:
    ar, nar = (tiny_folder / f"mars5_{kind}.safetensors" for kind in ("ar", "nar"))
    with pytest.raises(ConfigError, match="give both ar_path and nar_path"):
        _torch_hub(ar_path=ar)
    with pytest.raises(ConfigError, match="pretrained=False is not supported"):
        _torch_hub(pretrained=False)
    with pytest.raises(ConfigError, match=r"ckpt_format must be one of .* got 'bin'"):
        _torch_hub(ckpt_format="bin")
    with pytest.raises(CheckpointError, match="swapped"):
        _torch_hub(ar_path=nar, nar_path=ar)
    with pytest.raises(CheckpointError, match="missing"):
        _torch_hub(ar_path=tiny_folder / "missing", nar_path=nar)


@pytest.mark.parametrize("ckpt_format", ["safetensors", "pt"])
def test_torch_hub_takes_the_release_assets(
    cache: Path, monkeypatch: pytest.MonkeyPatch, ckpt_format: str
) -> None:
    cache.mkdir()
    names = [f"mars5_en_checkpoints_{part}.{ckpt_format}" for part in ("ar-3000000", "nar-1980000")]
    for name in names:
        (cache / name).touch()
    asked: list[hub.ModelFiles] = []
    monkeypatch.setattr(Mars5TTS, "from_files", lambda files, **options: asked.append(files))
    _torch_hub(ckpt_format=ckpt_format)
    assert asked == [hub.ModelFiles(*(cache / name for name in names))]


# ---------------------------------------------------------------- files of the published form


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all four files in their published forms: random, and small where they can be."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(5)
    tiny = tiny_config()
    config = ModelConfig(tiny.ar, tiny.nar)  # prompt, codec and settings as published
    for kind, model in (("ar", CodecLM(tiny.ar)), ("nar", ResidualTransformer(tiny.nar))):
        weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
        path = folder / f"mars5_{kind}.safetensors"
        write_checkpoint(path, weights, *tiny_tokenizers(), config)
    torch.save(files.encodec_weights(), folder / hub.ENCODEC_FILE)
    vocos = Vocoder(VocoderDims(), 16 * 1024).state_dict()
    table = vocos.pop("table").normal_()
    extra = {"feature_extractor.encodec.decoder.model.0.conv.conv.bias": torch.zeros(4)}
    torch.save(
        {"feature_extractor.codebook_weights": table, **vocos, **extra}, folder / hub.VOCOS_FILE
    )
    return folder


@pytest.fixture
def as_downloaded(published: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The published files, as if from the hub and from torch's cache; gives what was asked for."""
    asked: list[tuple[str, Any]] = []

    def fake(repo: str, filename: str, **options: Any) -> str:
        asked.append((repo, options))
        if not (published / filename).exists():
            raise EntryNotFoundError("404")
        return str(published / filename)

    digest = hashlib.sha256((published / hub.ENCODEC_FILE).read_bytes()).hexdigest()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    monkeypatch.setattr(hub, "cache_folder", lambda: published)
    monkeypatch.setattr(hub, "ENCODEC_SHA256", digest)
    return asked


def test_published_form_speaks_from_real_audio(
    as_downloaded: list[tuple[str, Any]], published: Path, speechlike: np.ndarray, tmp_path: Path
) -> None:
    system = Mars5TTS.from_pretrained("CAMB-AI/MARS5-TTS", device="cpu", revision="r", token="t")
    repo, options = "CAMB-AI/MARS5-TTS", {"revision": "r", "token": "t"}
    assert as_downloaded == [(repo, options)] * 4 + [(hub.VOCOS_REPO, {"token": "t"})]

    assert system.default_config == InferenceConfig()
    assert system.config.prompt.drop_first
    assert system.config.prompt.repeat_reference
    assert system.ar.embed.weight.dtype == torch.float32
    table = torch.load(published / hub.VOCOS_FILE)["feature_extractor.codebook_weights"]
    assert torch.equal(system.vocoder.table, table)

    path = tmp_path / "reference.flac"
    sf.write(path, speechlike[:12_000], 24_000)
    voice = system.voice(path, "some words")
    assert voice.codes.shape == (38, 8)  # 75 a second
    wave = torch.from_numpy(sf.read(path, dtype="float32")[0])
    codec = build_encodec(torch.load(published / hub.ENCODEC_FILE))
    assert torch.equal(voice.codes, codec.encode(wave[None])[0])
    assert len(voice.codes.unique(dim=0)) > 5, "these codes tell nothing apart"
    assert voice.frame_rate == 75
    prompt = 2 + len(system.text_tokenizer.encode("some words hello"))
    prompt += len(system.speech_tokenizer.encode(voice.codes[:, 0].tolist()))
    cfg = replace(SETTINGS, deep_clone=True, generate_max_len_override=prompt + 12)
    speech = system.generate("hello", voice, cfg=cfg, seed=1)
    n = len(speech.codes)
    assert 1 <= n <= 12 * 2
    assert len(speech.ar_codes) == 38 + n
    assert system.vocode(speech.codes).shape == (1, 320 * n)
    assert speech.audio.isfinite().all()
    assert speech.audio.std() > 0


def test_published_form_with_a_damaged_part(
    as_downloaded: list[tuple[str, Any]], published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(hub, "ENCODEC_SHA256", "0" * 64)
        with pytest.raises(HubError, match="expected 00000000"):
            Mars5TTS.from_pretrained(published, device="cpu")
    monkeypatch.setattr(hub, "VOCOS_FILE", hub.ENCODEC_FILE)
    with pytest.raises(CheckpointError, match="not the weights of Vocos for EnCodec"):
        Mars5TTS.from_pretrained(published, device="cpu")


def test_a_checkpoint_without_its_codec(tiny_folder: Path, tmp_path: Path) -> None:
    files = hub.in_folder(tiny_folder)
    with pytest.raises(
        CheckpointError, match=r"codec 'mel-rvq', whose file mars5_codec.*not beside"
    ):
        Mars5TTS.from_files(replace(files, codec=None), device="cpu")
    foreign = tmp_path / "codec.safetensors"
    foreign.write_bytes((tiny_folder / "mars5_ar.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="unexpected tensor"):
        Mars5TTS.from_files(replace(files, codec=foreign), device="cpu")
    from safetensors.torch import save_file

    weights = load_file(tiny_folder / "mars5_codec.safetensors")
    save_file({k: v for k, v in weights.items() if k != "codec.mean"}, foreign)
    with pytest.raises(CheckpointError, match="the codec does not fit its config"):
        Mars5TTS.from_files(replace(files, codec=foreign), device="cpu")
