"""Style banks: folders of captioned clips, from which words choose a delivery."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mars5.errors import StyleError
from mars5.style_words import compare
from mars5.text import check_speakable

log = logging.getLogger("mars5")

MANIFEST = "styles.jsonl"
SHIPPED = Path(__file__).parent / "style_bank"
VOICE_SUFFIXES = (".voice", ".safetensors")
LEAST_SCORE = 0.2  # under it, what was asked for is not there
_MAX_MANIFEST_BYTES, _MAX_STYLES = 4 * 1024 * 1024, 10_000
_REQUIRED, _OPTIONAL = ("name", "file", "caption", "licence"), ("text", "source", "plain")


@dataclass(frozen=True)
class Style:
    """A clip that shows a way of speaking.

    Attributes:
        name: short and unique in its bank.
        path: an audio file, or a voice file (`.voice`, `.safetensors`) of the model's codec.
        caption: how it sounds, in words.
        licence: what may be done with it.
        text: what it says, if known; without it no deep clone continues it.
        source: where it comes from.
        plain: a clip of the same speaker without a style; with it, only the difference is taken.
    """

    name: str
    path: Path
    caption: str
    licence: str
    text: str | None = None
    source: str | None = None
    plain: Style | None = None


@dataclass(frozen=True)
class StyleChoice:
    """The style that instructions chose, how well it fits (0 to 1), and why, in words."""

    style: Style
    score: float
    reason: str


class StyleBank:
    """Captioned clips of one or more folders, each with a manifest `styles.jsonl`.

    A line of the manifest is a JSON object with `name`, `file` (relative to the folder), `caption`
    and `licence`, and perhaps `text` (what the clip says), `source`, and `plain`: the name of a
    style of the same folder in which the same speaker reads without any. A style of a later folder
    replaces that of the same name.

    Args:
        folders: at least one; `mars5.styles.SHIPPED` is the one inside this package.

    Raises:
        StyleError: a manifest is missing, not readable, empty, or has a row that is no style.
    """

    def __init__(self, *folders: str | os.PathLike[str]) -> None:
        if not folders:
            raise StyleError(f"a style bank needs a folder with a {MANIFEST}: name one")
        found = {style.name: style for folder in folders for style in _read(Path(folder))}
        self.styles: tuple[Style, ...] = tuple(found.values())

    @classmethod
    def shipped(cls) -> StyleBank:
        """The bank inside this package: synthetic clips, free for any use."""
        return cls(SHIPPED)

    def choose(self, instructions: str) -> StyleChoice:
        """The style whose caption is most like the instructions.

        Raises:
            StyleError: nothing is like enough; the message lists what there is.
        """
        check_speakable(instructions, "instructions")
        likenesses = compare(instructions, [style.caption for style in self.styles])
        best = max(range(len(likenesses)), key=lambda i: likenesses[i].score)
        style, likeness = self.styles[best], likenesses[best]
        if likeness.score < LEAST_SCORE:
            known = "; ".join(f"{style.name} ({style.caption})" for style in self.styles)
            raise StyleError(
                f"no style is like {instructions!r:.200}: the nearest, {style.name!r}, scores "
                f"{likeness.score:.2f}, the least is {LEAST_SCORE}. There are: {known}"
            )
        words = ", ".join(repr(word) for word in likeness.words)
        reason = (
            f"{instructions!r:.200} is nearest to {style.caption!r} (score {likeness.score:.2f}, "
            f"by {words})"
        )
        log.info("style %s: %s", style.name, reason)
        return StyleChoice(style, likeness.score, reason)


def _read(folder: Path) -> list[Style]:
    manifest = folder / MANIFEST
    try:
        size = manifest.stat().st_size
        if size > _MAX_MANIFEST_BYTES:
            raise StyleError(
                f"{manifest} has {size} bytes, the limit is {_MAX_MANIFEST_BYTES}: split the bank"
            )
        lines = manifest.read_text(encoding="utf-8").split("\n")  # JSON may hold other line ends
    except (OSError, ValueError) as error:
        raise StyleError(
            f"cannot read the style bank {manifest}: {error}; write one JSON object a line with "
            f"{', '.join(_REQUIRED)}"
        ) from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not 1 <= len(numbered) <= _MAX_STYLES:
        raise StyleError(f"{manifest} has {len(numbered)} styles, expected 1 to {_MAX_STYLES}")
    rows = [(_style(manifest, number, line), number) for number, line in numbered]
    name, times = Counter(style.name for (style, _), _ in rows).most_common(1)[0]
    if times > 1:
        raise StyleError(f"{manifest} has the name {name!r} twice: names must be unique")
    found = {style.name: style for (style, _), _ in rows}
    for (_, plain), number in rows:
        if plain is not None and plain not in found:
            raise StyleError(f"{manifest}, line {number}: plain is {plain!r:.100}, no style of it")
    return [
        style if plain is None else replace(style, plain=found[plain]) for (style, plain), _ in rows
    ]


def _style(manifest: Path, number: int, line: str) -> tuple[Style, str | None]:
    """The style of a line, and the name of its plain one."""
    where = f"{manifest}, line {number}"
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StyleError(f"{where} is no JSON object: {error}") from error
    if not isinstance(row, dict):
        raise StyleError(f"{where} is no JSON object, found {line!r:.100}")
    unknown = row.keys() - {*_REQUIRED, *_OPTIONAL}
    if unknown:
        known = ", ".join((*_REQUIRED, *_OPTIONAL))
        raise StyleError(f"{where} has the unknown field {min(unknown)!r:.100}; known: {known}")
    for name in (*_REQUIRED, *_OPTIONAL):
        value = row.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, str) or not value.strip():
            raise StyleError(f"{where}: {name} must be text, found {value!r:.100}")
    path = manifest.parent / row["file"]
    if Path(row["file"]).is_absolute() or ".." in Path(row["file"]).parts:
        raise StyleError(
            f"{where}: file is {row['file']!r:.200}, but must lie in the bank's folder"
        )
    style = Style(
        row["name"], path, row["caption"], row["licence"], row.get("text"), row.get("source")
    )
    return style, row.get("plain")
