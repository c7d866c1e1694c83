"""Addresses as they are said: URLs, bare domains, e-mail, handles and hashtags."""

from __future__ import annotations

import re

from mars5.text.rules import Rule

_DOMAINS = "com|org|net|edu|gov|io|ai|dev|app|info|eu|uk|de|fr|ch|nl|jp|ca|tv"
_SPOKEN = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "?": "question mark",
    "=": "equals", "&": "and", "@": "at", ":": "colon", "+": "plus", "#": "hash", "~": "tilde",
    "%": "percent", ",": "comma",
}  # fmt: skip
_PARTS = re.compile(r"[^\W_]+|[^\w\s]|_")


def _address(written: str) -> str:
    """An address in words; what has no name in it is left out."""
    parts = _PARTS.findall(written)
    parts = [part if part[0].isalnum() else _SPOKEN.get(part, "") for part in parts]
    return " ".join("w w w" if part.lower() == "www" else part for part in parts if part)


def _url(match: re.Match[str]) -> str:
    written = match[0].rstrip(".,;:!?)]}'\"")
    after = match[0][len(written) :]
    spoken = _address(re.sub(r"^(?:https?|ftp)://", "", written, flags=re.IGNORECASE).rstrip("/"))
    return (spoken or "link") + after


RULES: list[Rule] = [
    # Markdown links say their text.
    (re.compile(r"!?\[([^\[\]\n]{1,300})\]\([^()\s]{1,500}\)"), lambda m: m[1]),
    (re.compile(r"(?<!\w)(?:(?:https?|ftp)://|www\.)[^\s<>]{1,2000}", re.IGNORECASE), _url),
    (
        re.compile(
            r"(?<![\w.+-])[\w+-]{1,64}(?:\.[\w+-]{1,64}){0,4}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"
        ),
        lambda m: _address(m[0]),
    ),
    (
        re.compile(
            rf"(?<![\w.@/-])(?:[A-Za-z0-9-]{{1,63}}\.){{1,4}}(?:{_DOMAINS})\b(?:[/?][^\s<>]{{0,2000}})?"
        ),
        _url,
    ),
    (re.compile(r"(?<![\w#])#+(?=[^\W\d_])"), lambda _: "hashtag "),
]
