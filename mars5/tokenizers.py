"""Byte-pair encoding of text and of L0 codes, near-linear in the length."""

from __future__ import annotations

import heapq
import operator
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import regex

from mars5.config import CODEBOOK_SIZE
from mars5.errors import TextError, TokenizerError

if TYPE_CHECKING:
    from typing import Self

VERSION = "minbpe v1"
GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
START_OF_TEXT = "<|startoftext|>"
END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"
END_OF_SPEECH = "<|endofspeech|>"

# Far above any trained tokenizer, low enough that a hostile file costs neither time nor memory.
MAX_FILE_CHARS = 2 * 1024 * 1024
MAX_MERGES = 65_536
MAX_SPECIALS = 256
MAX_SPECIAL_CHARS = 128
MAX_TOKEN_LENGTH = 4096  # bytes, or codes, that one token may stand for

SPLIT = regex.compile(GPT4_PATTERN)
_HEADER_LINES = 3  # version, pattern, number of specials
_GAP = -1  # stands where no token is; no merge contains it


class _Tokenizer:
    """Merges and specials over `base` elementary ids; `len` counts all three.

    Args:
        merges: pair number k becomes id `base + k`; it may use only ids below that.
        specials: string to id; their ids fill the range directly after the last merge.
        pattern: the file's split pattern; kept for `to_text`, never compiled nor used.

    Raises:
        TokenizerError: a merge is unknown, repeated or too long; a special
            id is outside its range or repeated; a special this kind needs is missing.
    """

    base: ClassVar[int]
    kind: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        specials: dict[str, int],
        pattern: str = GPT4_PATTERN,
    ) -> None:
        self.merges = list(merges)
        self.specials = dict(specials)
        self.pattern = pattern
        self._check_specials()
        self._token_of = self._check_merges()

    def __len__(self) -> int:
        return self.base + len(self.merges) + len(self.specials)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the contents of a "minbpe v1" file.

        Raises:
            TokenizerError: anything malformed; names the line and what was found there.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"{cls.kind} must be given as a string, got {type(text).__name__}")
        if len(text) > MAX_FILE_CHARS:
            raise TokenizerError(
                f"{cls.kind} has {len(text)} characters, at most {MAX_FILE_CHARS} are read: "
                "is this really a tokenizer file?"
            )
        lone = _surrogate(text)
        if lone is not None:
            raise TokenizerError(
                f"{cls.kind} holds the lone surrogate {lone.group()!a} at character "
                f"{lone.start()}, which cannot be written as UTF-8: fetch the file again"
            )
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        if lines[0] != VERSION:
            raise cls._line_error(1, f"{VERSION!r}", lines[0])
        if len(lines) < _HEADER_LINES:
            raise TokenizerError(
                f"{cls.kind} ends after line {len(lines)}; the split pattern and the number of "
                "special tokens must follow: fetch the file again"
            )
        n_specials = _number(lines[2])
        if n_specials is None or n_specials > MAX_SPECIALS:
            raise cls._line_error(3, f"the number of special tokens, 0 to {MAX_SPECIALS}", lines[2])
        first_merge = _HEADER_LINES + n_specials
        if len(lines) < first_merge:
            raise TokenizerError(
                f"{cls.kind}, line 3 announces {n_specials} special tokens, but only "
                f"{len(lines) - _HEADER_LINES} lines follow: fetch the file again"
            )
        if len(lines) - first_merge > MAX_MERGES:
            raise TokenizerError(
                f"{cls.kind} has {len(lines) - first_merge} merges, at most {MAX_MERGES} are "
                "read: is this really a tokenizer file?"
            )
        specials = cls._read_specials(lines[_HEADER_LINES:first_merge])
        merges = cls._read_merges(lines[first_merge:], first_merge + 1)
        return cls(merges, specials, lines[1])

    def to_text(self) -> str:
        """The contents of a "minbpe v1" file; the inverse of `from_text`."""
        specials = [f"{name} {token}" for name, token in self.specials.items()]
        merges = [f"{left} {right}" for left, right in self.merges]
        lines = [VERSION, self.pattern, str(len(specials)), *specials, *merges]
        return "\n".join(lines) + "\n"

    @classmethod
    def _line_error(cls, line: int, expected: str, found: str) -> TokenizerError:
        shown = found if len(found) <= 60 else found[:60] + "..."
        return TokenizerError(
            f"{cls.kind}, line {line}: expected {expected}, found {shown!r}: "
            "fetch or write the file again"
        )

    @classmethod
    def _read_specials(cls, lines: list[str]) -> dict[str, int]:
        specials: dict[str, int] = {}
        for number, line in enumerate(lines, _HEADER_LINES + 1):
            name, _, rest = line.partition(" ")
            token = _number(rest)
            if token is None or not name or len(name) > MAX_SPECIAL_CHARS:
                wanted = f"a special token of 1 to {MAX_SPECIAL_CHARS} characters and its id"
                raise cls._line_error(number, wanted, line)
            if name in specials:
                raise cls._line_error(number, "a special token not listed before", line)
            specials[name] = token
        return specials

    @classmethod
    def _read_merges(cls, lines: list[str], first: int) -> list[tuple[int, int]]:
        merges: list[tuple[int, int]] = []
        for number, line in enumerate(lines, first):
            left, _, right = line.partition(" ")
            pair = _number(left), _number(right)
            if pair[0] is None or pair[1] is None:
                raise cls._line_error(number, "a merge of two ids", line)
            merges.append((pair[0], pair[1]))
        return merges

    def _check_specials(self) -> None:
        first = self.base + len(self.merges)
        last = first + len(self.specials) - 1
        seen: set[int] = set()
        for line, (name, token) in enumerate(self.specials.items(), _HEADER_LINES + 1):
            if not first <= token <= last or token in seen:
                wanted = f"a special token with an unused id from {first} to {last}"
                raise self._line_error(line, wanted, f"{name} {token}")
            seen.add(token)
        for name in self.needs:
            if name not in self.specials:
                raise TokenizerError(
                    f"{self.kind} has no special token {name!r}, only {list(self.specials)[:8]}: "
                    "this is not a tokenizer of a MARS5 checkpoint"
                )

    def _check_merges(self) -> dict[tuple[int, int], int]:
        token_of: dict[tuple[int, int], int] = {}
        length = [1] * self.base
        for line, pair in enumerate(self.merges, _HEADER_LINES + 1 + len(self.specials)):
            left, right = pair
            token = len(length)
            if not (0 <= left < token and 0 <= right < token):
                raise self._line_error(line, f"ids from 0 to {token - 1}", f"{left} {right}")
            if pair in token_of:
                raise self._line_error(line, "a merge not listed before", f"{left} {right}")
            # Doubling merges grow as 2^k: refuse by length, before anything is expanded.
            length.append(length[left] + length[right])
            if length[token] > MAX_TOKEN_LENGTH:
                wanted = f"a merge that expands to at most {MAX_TOKEN_LENGTH} elements"
                raise self._line_error(line, wanted, f"{left} {right} ({length[token]} elements)")
            token_of[pair] = token
        return token_of

    @cached_property
    def _special_names(self) -> dict[int, str]:
        return {token: name for name, token in self.specials.items()}

    def _merge(self, ids: Iterable[int]) -> list[int]:
        """Merge one chunk, as if the earliest merge present were applied everywhere, repeatedly.

        A merge only creates pairs of later merges, so taking single occurrences in the order
        (merge, position) from a heap gives the same result in O(n log n).
        """
        tokens = [*ids, _GAP]
        n = len(tokens) - 1
        after = list(range(1, n + 2))
        before = list(range(-1, n))  # tokens[-1] is the gap: the first token has no left pair
        token_of = self._token_of
        heap = [
            token * n + i
            for i, pair in enumerate(pairwise(tokens))
            if (token := token_of.get(pair)) is not None
        ]
        heapq.heapify(heap)
        while heap:
            token, i = divmod(heapq.heappop(heap), n)
            j = after[i]
            if token_of.get((tokens[i], tokens[j])) != token:
                continue  # one of the two has been merged with its other neighbour
            tokens[i], tokens[j] = token, _GAP
            after[i] = end = after[j]
            before[end] = i
            for at, pair in ((before[i], (tokens[before[i]], token)), (i, (token, tokens[end]))):
                merged = token_of.get(pair)
                if merged is not None:
                    heapq.heappush(heap, merged * n + at)
        return [token for token in tokens if token != _GAP]

    def _expand(self, token: int) -> list[int]:
        """Elementary ids of one merged or elementary token."""
        out: list[int] = []
        todo = [token]
        while todo:
            token = todo.pop()
            if token < self.base:
                out.append(token)
            else:
                left, right = self.merges[token - self.base]
                todo += (right, left)
        return out

    def _check_ids(self, ids: Iterable[int]) -> list[int]:
        return _whole_numbers(ids, len(self), f"{self.kind}: id")


class TextTokenizer(_Tokenizer):
    """Byte-level BPE of UTF-8 text with the GPT-4 split pattern."""

    base = 256
    kind = "text tokenizer"
    needs = (START_OF_TEXT, END_OF_TEXT)

    @property
    def start_id(self) -> int:
        """Id of `<|startoftext|>`."""
        return self.specials[START_OF_TEXT]

    @property
    def end_id(self) -> int:
        """Id of `<|endoftext|>`."""
        return self.specials[END_OF_TEXT]

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """Text to ids.

        Args:
            specials: recognise special tokens where their exact string occurs (the longest
                first); otherwise they are ordinary characters.

        Raises:
            TextError: not a string, or it holds lone surrogates.
        """
        check_text(text)
        if not specials:
            return self._encode_plain(text)
        out: list[int] = []
        for piece in self._special_split.split(text):
            if piece in self.specials:
                out.append(self.specials[piece])
            else:
                out += self._encode_plain(piece)
        return out

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; bytes that are not UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        out = bytearray()
        for token in self._check_ids(ids):
            name = self._special_names.get(token)
            out += bytes(self._expand(token)) if name is None else name.encode()
        return out.decode(errors="replace")

    @cached_property
    def _special_split(self) -> re.Pattern[str]:
        names = sorted(self.specials, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")")

    def _encode_plain(self, text: str) -> list[int]:
        return [token for chunk in SPLIT.findall(text) for token in self._merge(chunk.encode())]


class SpeechTokenizer(_Tokenizer):
    """BPE of the coarse (L0) codes of one utterance, taken as one chunk."""

    base = CODEBOOK_SIZE
    kind = "speech tokenizer"
    needs = (END_OF_SPEECH,)

    @property
    def end_id(self) -> int:
        """Id of `<|endofspeech|>`."""
        return self.specials[END_OF_SPEECH]

    def encode(self, codes: Iterable[int]) -> list[int]:
        """Codes, each 0..1023, to ids.

        Raises:
            TokenizerError: a code is out of range or not a whole number.
        """
        return self._merge(check_codes(codes))

    def decode(self, ids: Iterable[int]) -> list[int]:
        """Ids to codes; special tokens stand for no code.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        kept = (token for token in self._check_ids(ids) if token not in self._special_names)
        return [code for token in kept for code in self._expand(token)]


def _number(field: str) -> int | None:
    """A plain decimal number of at most nine digits, or None."""
    return int(field) if field.isascii() and field.isdecimal() and len(field) <= 9 else None


def _surrogate(text: str) -> re.Match[str] | None:
    return re.search("[\ud800-\udfff]", text)


def check_text(text: str) -> None:
    if not isinstance(text, str):
        raise TextError(f"text must be a string, got {type(text).__name__}")
    lone = _surrogate(text)
    if lone is not None:
        raise TextError(
            f"text holds the lone surrogate {lone.group()!a} at character {lone.start()}, which is "
            "not valid Unicode: decode the source with the right encoding"
        )


def check_codes(codes: Iterable[int]) -> list[int]:
    return _whole_numbers(codes, CODEBOOK_SIZE, "speech tokenizer: code")


def _whole_numbers(values: Iterable[Any], limit: int, what: str) -> list[int]:
    try:
        numbers = [operator.index(value) for value in values]
    except TypeError as error:
        raise TokenizerError(f"{what}s must be a flat list of whole numbers: {error}") from error
    if numbers and not (min(numbers) >= 0 and max(numbers) < limit):
        at, bad = next((i, x) for i, x in enumerate(numbers) if not 0 <= x < limit)
        raise TokenizerError(f"{what} {bad} at position {at} is outside 0 to {limit - 1}")
    return numbers
