"""`mars5 batch`: each line of a file spoken into a file of its own; a killed run goes on."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mars5.audio import write_audio
from mars5.commands.lines import shows_progress, tell
from mars5.commands.options import FAILED, unused_transcript
from mars5.config import InferenceConfig
from mars5.errors import ConfigError, TextError
from mars5.progress import shown
from mars5.text import read_lexicon
from mars5.tts import Mars5TTS
from mars5.voice import Voice

MAX_BYTES = 256 * 2**20


def run(args: argparse.Namespace) -> int:
    """The command; 0 if every line of the share is spoken, by this run or an earlier one.

    Raises:
        ConfigError: the folder cannot be made or written.
        TextError: the file cannot be read, or holds no text.
    """
    settings = dict(args.settings)
    InferenceConfig(**settings)  # what can be refused is refused before the long work
    share, shares = args.shard
    lines = {n: text for n, text in read_lines(args.lines).items() if n % shares == share % shares}
    folder = Path(args.output)
    manifest = Manifest(folder, "" if shares == 1 else f"-{share}of{shares}")
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    how = _how(args, settings, lexicon)
    wanted = {
        n: {"line": n, "seed": args.seed + n, "text": text, "how": how} for n, text in lines.items()
    }
    todo = [n for n in lines if not manifest.holds(wanted[n])]
    failed = _speak(args, settings, lexicon, [wanted[n] for n in todo], manifest) if todo else 0
    if not args.quiet:
        tell(
            f"{args.output}: {len(todo) - failed} spoken, {len(lines) - len(todo)} were there, "
            f"{failed} failed"
        )
    return FAILED if failed else 0


def _how(
    args: argparse.Namespace, settings: dict[str, Any], lexicon: Mapping[str, str] | None
) -> dict[str, Any]:
    """What else a file depends on, as the manifest notes it."""
    given = {name: getattr(args, name) for name in ("model", "ref", "ref_text", "voice")}
    if lexicon is not None:  # a digest, since every entry has it and lexicons are long
        given["lexicon"] = _digest(json.dumps(dict(lexicon), sort_keys=True).encode())
    given |= {"settings": settings} if settings else {}
    return {name: value for name, value in given.items() if value is not None}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def read_lines(path: str) -> dict[int, str]:
    """The texts of a file by the number of their line, from 1 on.

    Raises:
        TextError: not a readable file of UTF-8 text, too large, or nothing in it.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise TextError(f"{path} has more than {MAX_BYTES >> 20} MiB: split it")
        content = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a zero byte in the path
        raise TextError(f"cannot read {path!r} as UTF-8 text: {error}") from error
    lines = enumerate(content.split("\n"), 1)
    texts = {number: line.strip() for number, line in lines if line.strip()}
    if not texts:
        raise TextError(f"{path} holds no text: write one text a line")
    return texts


class Manifest:
    """`manifest.jsonl` in a folder: one object for each line that was tried.

    Args:
        folder: made if it is not there.
        suffix: tells apart the manifests of machines that write into one folder.

    Raises:
        ConfigError: the folder cannot be made, or a manifest in it cannot be read.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self.path = folder / f"manifest{suffix}.jsonl"
        # All entries of a file, since the order of several manifests tells nothing of their age.
        self._found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("manifest*.jsonl")):
                # str.splitlines would also split inside a text, at U+2028 and the like
                for line in path.read_bytes().split(b"\n"):
                    self._take(line)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use the folder {str(folder)!r}: {error}") from error

        self._begin = "\n" if self._is_torn() else ""

    def _is_torn(self) -> bool:
        """Whether the last line was cut off, so that the next one needs a line of its own."""
        return self.path.is_file() and self.path.read_bytes()[-1:] not in (b"", b"\n")

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line.decode())
        except ValueError:  # cut off, maybe inside a letter, when an earlier run was killed: that
            return  # text is spoken again
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            self._found[entry["file"]].append(entry)

    def holds(self, wanted: dict[str, Any]) -> bool:
        """Whether the same text was spoken in the same way, and that audio is still there."""
        name = file_name(wanted["line"])
        found = [
            entry
            for entry in self._found.get(name, [])
            if all(entry.get(key) == value for key, value in wanted.items())
        ]
        if not found:
            return False
        try:
            there = self.written(name)
        except OSError:  # gone, or not a file: it is made again
            return False
        return any(all(entry.get(key) == there[key] for key in there) for entry in found)

    def written(self, name: str) -> dict[str, Any]:
        """What tells the audio of a file from other audio: entries of earlier runs may be stale."""
        content = (self.folder / name).read_bytes()
        return {"bytes": len(content), "sha256": _digest(content)}

    def add(self, entry: dict[str, Any]) -> None:
        """Append one entry."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._begin + json.dumps(entry, ensure_ascii=False) + "\n")
            self._begin = ""
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from error


def file_name(line: int) -> str:
    """The file that speaks line number `line`."""
    return f"{line:05d}.wav"


def _speak(
    args: argparse.Namespace,
    settings: dict[str, Any],
    lexicon: Mapping[str, str] | None,
    wanted: list[dict[str, Any]],
    manifest: Manifest,
) -> int:
    """Speak the wanted texts and note what came of them; returns how many failed."""
    ref = Voice.load(args.voice) if args.voice is not None else args.ref
    model = Mars5TTS.from_pretrained(args.model, device=args.device)
    voice = ref if isinstance(ref, Voice) else model.default_voice
    said = args.ref_text if args.ref is not None else voice and voice.transcript
    cfg = replace(model.default_config.for_reference(said is not None), **settings)
    items = model.tts_batch_iter(
        [entry["text"] for entry in wanted],
        ref,
        args.ref_text,
        cfg,
        seeds=[entry["seed"] for entry in wanted],
        batch_size=args.batch_size,
        lexicon=lexicon,
    )
    if not args.quiet:
        for line in unused_transcript(args, cfg):
            tell(line)
    failed = 0
    for item in shown(items, shows_progress(args), "texts", len(wanted)):
        entry = wanted[item.index]
        if item.speech is None:
            failed += 1
            manifest.add({**entry, "error": str(item.error)})
            tell(f"line {entry['line']}: error: {item.error}")
            continue
        name = file_name(entry["line"])
        write_audio(manifest.folder / name, item.speech.audio)
        seconds = round(len(item.speech.audio) / item.speech.sample_rate, 3)
        finish = item.speech.finish_reason
        made = {"file": name, "seconds": seconds, "finish_reason": finish}
        manifest.add({**entry, **made, **manifest.written(name)})
    return failed
