"""Shows that checkpoints of the published size load and run here, and how much memory they take.

    python benchmarks/full_size.py --folder full_size

writes a pair of checkpoints in the published format, filled with random numbers (2.4 GB, kept for
the next run), then loads and runs them in a fresh process for each precision. The files are made
from the recorded list of names and shapes, not from the library's models, so loading compares the
two. `mars5 bench --random full` measures their speed. Memory is read from /proc: Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from mars5.ar.decode import generate_ids
from mars5.bench.random_systems import make_tokenizers, random_weight
from mars5.bench.stages import TEXT
from mars5.checkpoint import ModelPair, load_pair, write_checkpoint
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, InferenceConfig
from mars5.nar.decode import Known, denoise
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.prompt import Prompt, build_prompt, joint_vocabulary

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
MANIFEST = Path("checkpoint", "full_size_manifest.json")
FRAME_RATE = 75
REFERENCE_FRAMES = 3 * FRAME_RATE
SPEECH_FRAMES = 2 * FRAME_RATE
AR_TOKENS = 8
NAR_STEPS = 3
GIB = 2**30

Result = TypeVar("Result")


@dataclass(frozen=True)
class Figures:
    """What one fresh process measured; memory in bytes.

    Attributes:
        before: resident when everything is imported and nothing loaded.
        loaded: resident after loading.
        load_peak, run_peak: the most that was ever resident, after loading and at the end.
        finite: neither the logits after the prompt nor the NAR's estimate hold NaN or Inf.
    """

    dtype: str
    parameters: int
    load_seconds: float
    weights: int
    before: int
    loaded: int
    load_peak: int
    run_peak: int
    prompt_ids: int
    finite: bool

    @property
    def load_growth(self) -> int:
        return self.load_peak - self.before

    @property
    def rows(self) -> list[tuple[str, str]]:
        return [
            ("weights", _gib(self.weights)),
            ("resident before loading", _gib(self.before)),
            ("resident after loading", _gib(self.loaded)),
            ("peak while loading", _gib(self.load_peak)),
            ("peak while loading / weights", f"{self.load_peak / self.weights:.2f}"),
            ("the same without what was there before", f"{self.load_growth / self.weights:.2f}"),
            ("peak with AR and NAR run", _gib(self.run_peak)),
            ("seconds to load", f"{self.load_seconds:.1f}"),
            ("outputs finite", "yes" if self.finite else "NO"),
        ]


def main() -> None:
    chosen = _parser().parse_args()
    folder: Path = chosen.folder
    files = [folder / f"mars5_{kind}.{chosen.format}" for kind in ("ar", "nar")]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        peak = _in_fresh_process(write_pair, files)
        print(f"wrote {folder}; peak of that process {_gib(peak)}\n")
    found = [_in_fresh_process(measure, files, dtype) for dtype in chosen.dtypes]
    print("\n".join(_table(found)))
    print()
    print(json.dumps({"format": chosen.format, "runs": [asdict(figures) for figures in found]}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write, load and run a random pair of checkpoints of the published size."
    )
    parser.add_argument("--folder", type=Path, required=True, help="for the files, kept if there")
    parser.add_argument("--format", choices=("safetensors", "pt"), default="safetensors")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=("float32", "bfloat16", "float16"),
        default=["float32", "bfloat16"],
        help="precisions to load in",
    )
    return parser


def _in_fresh_process(work: Callable[..., Result], *arguments: Any) -> Result:
    """Peak memory is that of a process and never falls: each measurement needs its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _table(found: list[Figures]) -> Iterator[str]:
    yield "| | " + " | ".join(figures.dtype for figures in found) + " |"
    yield "|---|" + "---:|" * len(found)
    for cells in zip(*(figures.rows for figures in found), strict=True):
        yield f"| {cells[0][0]} | " + " | ".join(value for _, value in cells) + " |"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.2f} GiB"


def write_pair(files: list[Path]) -> int:
    """Write the AR and the NAR file, one after the other; returns the peak memory in bytes."""
    text, speech = make_tokenizers()
    sizes = {"n_vocab": len(text) + len(speech), "n_text_vocab": len(text) + 1}
    golden = Path(os.environ.get("MARS5_GOLDEN_DIR", GOLDEN))
    manifest = json.loads((golden / MANIFEST).read_text(encoding="utf-8"))
    for kind, path in zip(("ar", "nar"), files, strict=True):
        weights = {
            entry["name"]: random_weight(
                entry["name"], [sizes.get(n, n) for n in entry["shape"]], torch.float16
            )
            for entry in manifest[kind]["entries"]
        }
        if path.suffix == ".pt":
            vocab = {"texttok.model": text.to_text(), "speechtok.model": speech.to_text()}
            torch.save({"vocab": vocab, "model": weights}, path)
        else:
            write_checkpoint(path, weights, text, speech, None)
        del weights  # before the next ones come
    return _memory()[1]


@torch.inference_mode()
def measure(files: list[Path], dtype: str) -> Figures:
    """Load the pair and run both models a little, by the functions that `Mars5TTS` calls."""
    before, _ = _memory()
    start = time.perf_counter()
    pair = load_pair(*files, dtype=getattr(torch, dtype))
    load_seconds = time.perf_counter() - start
    loaded, load_peak = _memory()
    parameters = [*pair.ar.parameters(), *pair.nar.parameters()]
    prompt = build_prompt(TEXT, None, [], pair.text_tokenizer, pair.speech_tokenizer)
    generator = torch.Generator().manual_seed(2)
    reference = _random_codes((1, REFERENCE_FRAMES, N_CODEBOOKS), generator)
    coarse = _random_codes((1, SPEECH_FRAMES), generator)  # the AR's few would be too short
    estimator = _estimator(pair, prompt, reference)
    finite = _all_finite(pair, prompt, reference, estimator, coarse)
    _ar_run(pair, prompt, reference, generator)
    _nar_run(pair, estimator, coarse, generator)
    return Figures(
        dtype=dtype,
        parameters=sum(p.numel() for p in parameters),
        load_seconds=load_seconds,
        weights=sum(p.nbytes for p in parameters),
        before=before,
        loaded=loaded,
        load_peak=load_peak,
        run_peak=_memory()[1],
        prompt_ids=len(prompt.ids),
        finite=finite,
    )


def _ar_run(pair: ModelPair, prompt: Prompt, reference: Tensor, generator: torch.Generator) -> None:
    cfg = InferenceConfig(generate_max_len_override=len(prompt.ids) + AR_TOKENS)
    ids = generate_ids(
        pair.ar,
        torch.tensor([prompt.ids]),
        pair.ar.speaker_vector(reference),
        joint_vocabulary(pair.text_tokenizer, pair.speech_tokenizer),
        cfg,
        len(TEXT),
        generator,
    )
    for _ in ids:
        pass


def _estimator(pair: ModelPair, prompt: Prompt, reference: Tensor) -> Estimator:
    cfg = InferenceConfig()
    return Estimator(
        pair.nar,
        torch.tensor([prompt.ids[: prompt.n_text]]),
        torch.tensor([prompt.n_text]),
        pair.nar.speaker_vector(reference, torch.tensor([REFERENCE_FRAMES])),
        cfg.nar_guidance_w,
        cfg.x_0_temp,
    )


def _nar_run(
    pair: ModelPair, estimator: Estimator, coarse: Tensor, generator: torch.Generator
) -> None:
    """A shallow clone: nothing of the reference is in the decoder."""
    schedule = cosine_schedule(pair.config.nar.diffusion_steps)
    override = InferenceConfig().q0_override_steps
    known = Known.from_coarse(coarse)
    for _ in denoise(estimator, known, schedule, NAR_STEPS, override, generator):
        pass


def _all_finite(
    pair: ModelPair, prompt: Prompt, reference: Tensor, estimator: Estimator, coarse: Tensor
) -> bool:
    speaker = pair.ar.speaker_vector(reference)
    logits = pair.ar.next_logits(torch.tensor([prompt.ids]), speaker)
    estimate = estimator(Known.from_coarse(coarse).codes, pair.config.nar.diffusion_steps // 2)
    return bool(logits.isfinite().all() and estimate.isfinite().all())


def _random_codes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(CODEBOOK_SIZE, shape, generator=generator)


def _memory() -> tuple[int, int]:
    """Bytes of this process in memory: now, and the most there ever were."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


if __name__ == "__main__":
    main()
