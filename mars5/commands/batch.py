"""`mars5 batch`: each line of a file spoken into a file of its own; a killed run goes on."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from mars5.audio import write_audio
from mars5.commands.checks import check_kept
from mars5.commands.lines import shows_progress, tell
from mars5.commands.options import SOME_FAILED
from mars5.commands.speaker import Speaker, Wishes, make_speaker, read_wishes
from mars5.commands.styles import profile_of
from mars5.device import resolve_device
from mars5.errors import ConfigError, TextError
from mars5.hub import NANO
from mars5.profiles import Profile
from mars5.progress import shown
from mars5.voice import Voice

MAX_BYTES = 256 * 2**20
_NOTED = ("ref", "ref_text", "voice", "style", "style_text", "instructions", "dtype", "quantize")


def run(args: argparse.Namespace) -> int:
    """The command; 0 if every line of the share is spoken, by this run or an earlier one.

    Raises:
        ConfigError: the folder cannot be made or written.
        TextError: the file cannot be read, or holds no text.
        Mars5Error: others of `read_wishes` and `make_speaker`; the voice cannot be prepared.
    """
    wishes = read_wishes(args)
    share, shares = args.shard
    texts = read_lines(args.lines)
    longest = max(texts.values(), key=len)  # of all shares, so that "auto" is one choice for all
    lines = {n: text for n, text in texts.items() if n % shares == share % shares}
    folder = Path(args.output)
    listed = f"manifest{'' if shares == 1 else f'-{share}of{shares}'}.jsonl"
    check_kept(args, *(folder / name for name in (listed, *map(file_name, texts))))
    manifest = Manifest(folder, listed)
    how = _how(args, wishes, longest)
    wanted = {
        n: {"line": n, "seed": args.seed + n, "text": text, "how": how} for n, text in lines.items()
    }
    todo = [n for n in lines if not manifest.holds(wanted[n])]
    failed = _speak(args, wishes, longest, [wanted[n] for n in todo], manifest) if todo else 0
    if not args.quiet:
        tell(
            f"{args.output}: {len(todo) - failed} spoken, {len(lines) - len(todo)} were there, "
            f"{failed} failed"
        )
    return SOME_FAILED if failed else 0


def _how(args: argparse.Namespace, wishes: Wishes, longest: str) -> dict[str, Any]:
    """What else a file depends on, as the manifest notes it: all that was given."""
    given: dict[str, Any] = {"model": args.model or NANO}
    profile = _profile(args, wishes, longest)
    if profile is not None:
        given = {"model": args.model or profile.model, "profile": profile.name}
    given |= {name: getattr(args, name) for name in _NOTED}
    if args.style_strength != 1:
        given["style_strength"] = args.style_strength
    if not args.normalise:
        given["normalise"] = False
    if wishes.lexicon is not None:  # a digest, since every entry has it and lexicons are long
        given["lexicon"] = _digest(json.dumps(dict(wishes.lexicon), sort_keys=True).encode())
    given |= {"styles": args.styles or None, "settings": wishes.settings or None}
    return {name: value for name, value in given.items() if value is not None}


def _profile(args: argparse.Namespace, wishes: Wishes, longest: str) -> Profile | None:
    """The one that is used; what "auto" chooses is noted, since elsewhere it may choose another."""
    if args.profile is None:
        return None
    device = resolve_device(args.device).type
    return profile_of(args, device, longest, wishes.has_transcript)


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
        name: its own; it tells apart those of machines that write into one folder.

    Raises:
        ConfigError: the folder cannot be made, or a manifest in it cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.path = folder / name
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
    wishes: Wishes,
    longest: str,
    wanted: list[dict[str, Any]],
    manifest: Manifest,
) -> int:
    """Speak the wanted texts and note what came of them; returns how many failed."""
    speaker = make_speaker(args, wishes, longest)
    *_, cfg = speaker.given
    if not args.quiet:
        for line in speaker.remarks:
            tell(line)
    items = speaker.model.tts_batch_iter(
        [entry["text"] for entry in wanted],
        _voice(speaker),
        cfg=cfg,
        seeds=[entry["seed"] for entry in wanted],
        batch_size=args.batch_size,
        normalise=args.normalise,
        lexicon=wishes.lexicon,
    )
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


def _voice(speaker: Speaker) -> Voice:
    """The voice of all texts with its style, prepared once."""
    ref, said, cfg = speaker.given
    if isinstance(ref, str):
        ref = speaker.model.voice(ref, said, cfg=cfg)
    style = {name: speaker.directions[name] for name in ("style", "style_strength")}
    return speaker.model.directed(ref, **style)
