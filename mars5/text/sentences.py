"""Sentences in running text, found while it arrives.

The text is scanned once. At each character that may end a sentence the scanner decides by the word
before and the word after; if that word has not arrived yet, it waits. So the cuts do not depend on
how the text was cut up on its way here.
"""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import cast

from mars5.text.abbreviations import kind_of, starts_sentence
from mars5.text.controls import end_of_escaped, may_become_pause, read_pause, unescape

MAX_SENTENCE = 1_000
"""Characters after which a sentence without an end is cut at a blank."""

SHORT_LINE = 40
"""A line up to this long without an end is taken for a heading, an item or a verse."""

_CLOSING = "\"'”’»)\\]}」』）"
_CANDIDATE = re.compile(r"[.!?…。！？｡؟۔।॥\n\[\\]")
_END = re.compile(rf"(?P<marks>[.!?…。！？｡؟۔।॥]{{1,32}})(?P<closing>[{_CLOSING}]{{0,8}})")
_ENDS_WITHOUT_BLANK = frozenset("。！？｡")
_NEXT_WORD = re.compile(r"\s{1,2}[\"'“‘«(\[*_]{0,4}(?P<word>[^\W\d_]{0,16})(?P<rest>.?)", re.DOTALL)
_LAST_WORD = re.compile(r"[\"'“‘«(\[*_]*([^\s]*)\Z")
_MARKER = re.compile(r"[-*•‣◦▪·+]\s|[–—]|\(?[0-9]{1,3}[.)]\s|\(?[a-zA-Z]\)\s|#{1,6}\s")
_ENUMERATOR = re.compile(r"\(?(?:[0-9]{1,3}|[a-zA-Z])")
_BLANKS = re.compile(r"\s+")
_MARKER_LENGTH = 7
_MEASURE = re.compile(r"[0-9¼-¾⅐-⅞][\s-]?[a-z]{1,4}\Z")  # "6 ft": in "6 ft. tall" it goes on
_EXCLAIMING_NAMES = frozenset({"yahoo", "jeopardy"})


class Gap(Enum):
    """What lies between a sentence and the next."""

    CUT = "cut"  # no end: the sentence was longer than MAX_SENTENCE
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    END = "end"


@dataclass(frozen=True)
class Sentence:
    """One sentence and what follows it.

    Attributes:
        text: without blanks at its ends, single blanks inside; empty only for pauses that open
            the text.
        pause: seconds asked for by tags behind it, or None.
    """

    text: str
    gap: Gap
    pause: float | None


class _Wait(Exception):
    """The text ends where the next character is needed."""


class SentenceStream:
    """Takes text in any pieces, gives sentences; `feed` and then once `flush`."""

    def __init__(self) -> None:
        self._text = ""
        self._start = self._at = 0
        self._blank = self._newlines = 0
        # A sentence that has ended, while the gap behind it is read; first: the empty one.
        self._ended: str | None = ""
        self._gap, self._pause = Gap.SENTENCE, None  # type: Gap, float | None

    def feed(self, text: str) -> Iterator[Sentence]:
        """The sentences that are surely finished with `text`."""
        self._text = self._text[self._start :] + self._with_plain_blanks(text)
        self._at -= self._start
        self._start = 0
        yield from self._sentences(final=False)

    def flush(self) -> Iterator[Sentence]:
        """What is left."""
        yield from self._sentences(final=True)

    def _with_plain_blanks(self, text: str) -> str:
        r"""`text` with runs of blanks as " ", "\n" or "\n\n"; those at its end are held back."""
        parts = []
        at = 0
        for blanks in _BLANKS.finditer(text):
            if blanks.start() > at:
                parts += [self._take_blanks(), text[at : blanks.start()]]
            at = blanks.end()
            self._blank = 1
            run = blanks[0]
            self._newlines += run.count("\n") + run.count("\u2028") + 2 * run.count("\u2029")
        if at < len(text):
            parts += [self._take_blanks(), text[at:]]
        return "".join(parts)

    def _take_blanks(self) -> str:
        blanks = "\n" * min(self._newlines, 2) or " " * self._blank
        self._blank = self._newlines = 0
        return blanks

    def _sentences(self, final: bool) -> Iterator[Sentence]:
        try:
            while self._start < len(self._text) or self._ended is not None:
                if self._ended is None:
                    self._find_end(final)
                if self._read_gap(final):
                    yield self._finished()
        except _Wait:
            return

    def _finished(self) -> Sentence:
        sentence = Sentence(self._ended or "", self._gap, self._pause)
        self._ended, self._gap, self._pause = None, Gap.SENTENCE, None
        return sentence

    def _read_gap(self, final: bool) -> bool:
        """Read blanks and pause tags; whether something follows them, or nothing ever will."""
        while self._start < len(self._text):
            character = self._text[self._start]
            if character == "[":
                tag = self._pause_at(self._start, final)
                if tag is None:
                    return True
                self._pause = (self._pause or 0.0) + tag[0]
                self._start = tag[1]
            elif character.isspace():
                if self._text.startswith("\n\n", self._start):
                    self._gap = Gap.PARAGRAPH
                self._start += 1
            else:
                return True
            self._at = self._start
        if not final:
            raise _Wait
        if self._gap is not Gap.PARAGRAPH or self._ended:
            self._gap = Gap.END
        return True

    def _find_end(self, final: bool) -> None:
        """Move the next sentence out of the text."""
        limit = self._start + MAX_SENTENCE
        while candidate := _CANDIDATE.search(self._text, self._at, limit):
            self._at = candidate.start()
            end, is_end = self._judge(self._at, final)
            self._at = end
            if is_end:
                return self._end_at(end)
        self._at = min(len(self._text), limit)
        if len(self._text) > limit:
            self._gap = Gap.CUT
            blank = max(self._text.rfind(blank, self._start, limit) for blank in " \n")
            return self._end_at(blank if blank > self._start else limit)
        if not final:
            raise _Wait
        return self._end_at(len(self._text))

    def _end_at(self, end: int) -> None:
        self._ended = unescape(" ".join(self._text[self._start : end].split()))
        self._start = self._at = end

    def _judge(self, at: int, final: bool) -> tuple[int, bool]:
        """(where to go on, whether the sentence ends there) at the candidate at `at`."""
        character = self._text[at]
        if character == "[":
            return (at, True) if self._pause_at(at, final) else (at + 1, False)
        if character == "\\":
            rest_is_missing = at + 1 == len(self._text) or may_become_pause(self._text, at + 1)
            if rest_is_missing and not final:
                raise _Wait
            return end_of_escaped(self._text, at) or at + 1, False
        if character == "\n":
            return self._judge_line(at, final)
        return self._judge_mark(at, final)

    def _pause_at(self, at: int, final: bool) -> tuple[float, int] | None:
        if not final and may_become_pause(self._text, at):
            raise _Wait
        return read_pause(self._text, at)

    def _judge_line(self, at: int, final: bool) -> tuple[int, bool]:
        text = self._text
        if text.startswith("\n\n", at):
            return at, True
        if not final and len(text) < at + 1 + _MARKER_LENGTH:
            raise _Wait
        if _MARKER.match(text, at + 1):
            return at, True
        line = text[max(self._start, text.rfind("\n", self._start, at) + 1) : at]
        if line.startswith("#"):
            return at, True
        follows = text[at + 1 : at + 3].lstrip("\"'“‘«(")[:1]
        open_end = line.endswith((",", ";", "-", "–", "—"))
        is_own = len(line) <= SHORT_LINE and not open_end and _begins_large(follows)
        return (at, True) if is_own and not _is_short_form(line) else (at + 1, False)

    def _judge_mark(self, at: int, final: bool) -> tuple[int, bool]:
        text = self._text
        found = cast("re.Match[str]", _END.match(text, at))  # at a candidate that is a mark
        end, marks, closing = found.end(), found["marks"], found["closing"]
        if end == len(text):
            if not final:
                raise _Wait
            return end, True
        if not text[end].isspace():
            return end, marks[-1] in _ENDS_WITHOUT_BLANK
        if text.startswith("\n\n", end):
            return end, True
        following = cast("re.Match[str]", _NEXT_WORD.match(text, end))  # a blank is there
        # Blanks held back show that the word is over.
        over = final or following["rest"] or (following["word"] and self._blank)
        return end, self._ends(at, marks, closing, following, bool(over))

    def _ends(
        self, at: int, marks: str, closing: str, following: re.Match[str], over: bool
    ) -> bool:
        """Whether the sentence ends at `marks`, given what follows: a word, `over` or not."""
        word, rest = following["word"], following["rest"]
        first = word[:1] or rest
        if not first and not over:
            raise _Wait
        if not word and rest and rest in ".!?…,;:)":
            return False
        before = _LAST_WORD.search(self._text[max(self._start, at - 32) : at])
        last = before[1] if before else ""
        if marks != ".":
            only_dots = not set(marks) - set(".…")
            inside = only_dots or closing or last.lower() in _EXCLAIMING_NAMES
            return not (inside and first.islower())
        if closing or not last:  # without a word before: ". . ."
            return not first.islower()
        begun = self._text[self._start : at]
        if last == begun and _ENUMERATOR.fullmatch(begun):
            return False
        if first.islower() and _MEASURE.search(begun[-8:]):
            return False
        if not over and kind_of(last) in ("number", "either"):
            raise _Wait
        return _full_stop_ends(last, word, rest)


def _full_stop_ends(last: str, word: str, rest: str) -> bool:
    """Whether a full stop ends the sentence between `last` and `word` (then `rest`)."""
    kind = kind_of(last)
    if kind == "end":
        return True
    if kind == "never":
        return False
    number = not word and rest.isdigit()
    if kind == "number":
        return not (number or (word.isupper() and set(word) <= set("IVXLC") and word != "I"))
    initial = len(word) == 1 and rest == "."
    return starts_sentence(word) and not initial


def _is_short_form(line: str) -> bool:
    return line.endswith(".") and kind_of(line[:-1].rsplit(None, 1)[-1]) == "never"


def _begins_large(character: str) -> bool:
    return character.isupper() or character.isdigit()
