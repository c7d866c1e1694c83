"""Tokenizers: the exact merging rule, the file format, training, and hostile files."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from mars5.errors import TextError, TokenizerError
from mars5.tokenizers import (
    GPT4_PATTERN,
    MAX_FILE_CHARS,
    MAX_MERGES,
    MAX_TOKEN_LENGTH,
    SpeechTokenizer,
    TextTokenizer,
)
from mars5.train.bpe import train_speech, train_text

CORPUS = ["the cat sat on the mat", "The hat of the cat is there, isn't it?", "héé 123456  \n x"]
Merges = list[tuple[int, int]]


def text_file(merges: Sequence[str] = (), specials: Sequence[str] | None = None) -> str:
    if specials is None:
        first = 256 + len(merges)
        specials = [f"<|startoftext|> {first}", f"<|endoftext|> {first + 1}"]
    return "\n".join(["minbpe v1", GPT4_PATTERN, str(len(specials)), *specials, *merges, ""])


def text_tokenizer(merges: Merges) -> TextTokenizer:
    return TextTokenizer.from_text(text_file([f"{a} {b}" for a, b in merges]))


def speech_tokenizer(merges: Merges) -> SpeechTokenizer:
    return SpeechTokenizer(merges, {"<|endofspeech|>": 1024 + len(merges)})


# --- the merging rule -----------------------------------------------------------------------


def merge_all(ids: list[int], pair: tuple[int, int], token: int) -> list[int]:
    out: list[int] = []
    at = 0
    while at < len(ids):
        if tuple(ids[at : at + 2]) == pair:
            out.append(token)
            at += 2
        else:
            out.append(ids[at])
            at += 1
    return out


def naive_encode(ids: Sequence[int], merges: Merges, base: int) -> list[int]:
    """The definition: the earliest merge present anywhere is applied everywhere, repeatedly."""
    out = list(ids)
    while present := set(pairwise(out)) & set(merges):
        first = min(present, key=merges.index)
        out = merge_all(out, first, base + merges.index(first))
    return out


@st.composite
def random_merges(draw: st.DrawFn, base: int, letters: Sequence[int]) -> Merges:
    merges: Merges = []
    for _ in range(draw(st.integers(0, 10))):
        known = st.sampled_from([*letters, *range(base, base + len(merges))])
        pair = draw(st.tuples(known, known))
        if pair not in merges:
            merges.append(pair)
    return merges


@settings(max_examples=400, deadline=None)
@given(random_merges(1024, [0, 1, 1023]), st.lists(st.sampled_from([0, 1, 1023]), max_size=60))
def test_speech_encoding_equals_the_naive_rule(merges: Merges, codes: list[int]) -> None:
    tokenizer = speech_tokenizer(merges)
    ids = tokenizer.encode(codes)
    assert ids == naive_encode(codes, merges, 1024)
    assert tokenizer.decode(ids) == codes


@settings(max_examples=200, deadline=None)
@given(
    random_merges(256, [97, 98, 32, 0xC3, 0xA9]),
    st.text(st.sampled_from("abAé 7\n'"), max_size=40) | st.text(max_size=20),
)
def test_text_encoding_equals_the_naive_rule_per_chunk(merges: Merges, text: str) -> None:
    tokenizer = text_tokenizer(merges)
    chunks = [chunk.encode() for chunk in regex.findall(GPT4_PATTERN, text)]
    ids = tokenizer.encode(text)
    assert ids == [token for chunk in chunks for token in naive_encode(chunk, merges, 256)]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("n", "ids"),
    [(1, [97]), (2, [256]), (3, [256, 97]), (4, [257]), (5, [257, 97]), (6, [257, 256])],
)
def test_repeats_merge_left_to_right(n: int, ids: list[int]) -> None:
    assert text_tokenizer([(97, 97), (256, 256)]).encode("a" * n) == ids


class CountedDict(dict[tuple[int, int], int]):
    lookups = 0

    def get(self, key, default=None):  # type: ignore[no-untyped-def]
        self.lookups += 1
        return super().get(key, default)


@pytest.mark.parametrize("letters", ["a", "abc", "thecats"])
def test_one_unbroken_word_takes_linear_work(letters: str) -> None:
    merges = train_text([*CORPUS, "a" * 64, "abc" * 30], 40).merges

    def lookups(n: int) -> int:
        tokenizer = text_tokenizer(merges)
        tokenizer._token_of = counted = CountedDict(tokenizer._token_of)
        word = "".join(random.Random(n).choices(letters, k=n))
        assert tokenizer.decode(tokenizer.encode(word)) == word
        return counted.lookups

    once, twice = lookups(50_000), lookups(100_000)
    assert once < 50_000 * 8
    assert twice <= 2.3 * once


# --- strings and ids ------------------------------------------------------------------------


def test_sizes_and_special_ids() -> None:
    text, speech = train_text(CORPUS, 5), train_speech([[1, 2, 1, 2, 3]], 2)
    assert (text.start_id, text.end_id, len(text)) == (261, 262, 256 + 5 + 3)
    assert text.specials == {"<|startoftext|>": 261, "<|endoftext|>": 262, "<|padding|>": 263}
    assert (speech.end_id, len(speech)) == (1026, 1024 + 2 + 1)


def test_specials_are_plain_text_unless_asked_for() -> None:
    tokenizer = train_text(CORPUS, 3)
    marked = "<|startoftext|>hi<|endoftext|>"
    assert max(tokenizer.encode(marked)) < tokenizer.start_id
    ids = tokenizer.encode(marked, specials=True)
    assert ids == [tokenizer.start_id, *tokenizer.encode("hi"), tokenizer.end_id]
    assert tokenizer.decode(ids) == tokenizer.decode(tokenizer.encode(marked)) == marked


def test_the_longest_special_wins() -> None:
    specials = {"<|startoftext|>": 256, "<|endoftext|>": 257, "<a": 258, "<a>": 259}
    assert TextTokenizer([], specials).encode("<a><a", specials=True) == [259, 258]


def test_invalid_utf8_decodes_to_replacement_characters() -> None:
    assert text_tokenizer([]).decode([0xFF, 104, 0xC3]) == "\ufffdh\ufffd"


def test_nothing_stays_nothing() -> None:
    text, speech = text_tokenizer([]), speech_tokenizer([])
    assert (text.encode(""), text.decode([]), speech.encode([]), speech.decode([])) == (
        [],
        "",
        [],
        [],
    )


def test_end_of_speech_stands_for_no_code() -> None:
    assert speech_tokenizer([(7, 8)]).decode([1024, 1025, 9]) == [7, 8, 9]


def test_numpy_integers_are_ids_and_codes() -> None:
    assert speech_tokenizer([(7, 8)]).encode(np.array([7, 8, 9])) == [1024, 9]
    assert text_tokenizer([]).decode(np.array([104, 105])) == "hi"


@pytest.mark.parametrize("bad", [[1024], [3, -1], [2.0], ["5"], None, [[1, 2]]])
def test_codes_outside_the_codebook_are_refused(bad: list[int]) -> None:
    with pytest.raises(TokenizerError, match="code"):
        speech_tokenizer([(1, 2)]).encode(bad)


@pytest.mark.parametrize("bad", [[258], [97, -1], [1 << 70], [1.5], None])
def test_unknown_ids_are_refused(bad: list[int]) -> None:
    with pytest.raises(TokenizerError, match="text tokenizer: id"):
        text_tokenizer([]).decode(bad)


@pytest.mark.parametrize("bad", ["ok \ud800 no", "\udfff", None, b"bytes"])
def test_lone_surrogates_and_other_types_are_refused(bad: str) -> None:
    with pytest.raises(TextError, match=r"lone surrogate|must be a string"):
        text_tokenizer([]).encode(bad)
    with pytest.raises(TextError, match=r"lone surrogate|must be a string"):
        train_text([bad], 0)


def test_unknown_speech_ids_are_refused() -> None:
    with pytest.raises(TokenizerError, match="id 1025 at position 1 is outside 0 to 1024"):
        speech_tokenizer([]).decode([1024, 1025])


# --- files ----------------------------------------------------------------------------------


def test_files_round_trip() -> None:
    text, speech = train_text(CORPUS, 20), train_speech([[5, 6, 5, 6, 7, 5]], 3)
    again = TextTokenizer.from_text(text.to_text())
    assert (again.to_text(), again.merges, again.specials) == (
        text.to_text(),
        text.merges,
        text.specials,
    )
    assert SpeechTokenizer.from_text(speech.to_text()).to_text() == speech.to_text()
    assert TextTokenizer.from_text(text.to_text().replace("\n", "\r\n")).merges == text.merges


def refuse(
    text: str, *said: str, kind: type[TextTokenizer | SpeechTokenizer] = TextTokenizer
) -> None:
    with pytest.raises(TokenizerError) as caught:
        kind.from_text(text)
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize("n", [28, 2000])
def test_doubling_merges_are_refused_without_expanding_them(n: int) -> None:
    merges = ["97 97", *(f"{k} {k}" for k in range(256, 255 + n))]
    tracemalloc.start()
    try:
        refuse(text_file(merges), "line 18", "8192 elements", f"at most {MAX_TOKEN_LENGTH}")
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
    longest = text_tokenizer([(97, 97), *((k, k) for k in range(256, 267))])
    assert longest.decode([267]) == "a" * MAX_TOKEN_LENGTH


@pytest.mark.parametrize("line", ["", "minbpe v2", "minbpe v1 ", "\ufeffminbpe v1", "x" * 1000])
def test_wrong_version_line(line: str) -> None:
    refuse(text_file().replace("minbpe v1", line), "line 1", "'minbpe v1'", repr(line[:60])[:-1])


@pytest.mark.parametrize("count", ["", "-1", "two", "2.0", "+2", "1_0", "²", "257", "9" * 5000])
def test_bad_counts(count: str) -> None:
    refuse(f"minbpe v1\n{GPT4_PATTERN}\n{count}\n", "line 3", "number of special tokens")


def test_counts_that_contradict_the_lines() -> None:
    refuse("minbpe v1", "ends after line 1")
    refuse(text_file().replace("\n2\n", "\n3\n"), "line 3", "announces 3", "only 2")
    refuse(text_file().replace("\n2\n", "\n1\n"), "line 5", "a merge of two ids", "<|endoftext|>")
    refuse(text_file(["97 98"]).replace("\n2\n", "\n3\n"), "line 6", "special token", "97 98")


def test_too_much() -> None:
    refuse("minbpe v1\n" + "x" * MAX_FILE_CHARS, f"at most {MAX_FILE_CHARS}")
    refuse(text_file(["0 0"] * (MAX_MERGES + 1)), f"{MAX_MERGES + 1} merges")


@pytest.mark.parametrize("merge", ["97 257", "258 97", "97 -1", "97 999999999", "97 4294967296"])
def test_merge_of_an_unknown_id(merge: str) -> None:
    refuse(text_file(["97 98", merge]), "line 7", merge)


@pytest.mark.parametrize("merge", ["", "97", "97 98 99", "97  98", "97,98", "a b", "٩ ٩", "97\t98"])
def test_merge_that_is_not_two_ids(merge: str) -> None:
    refuse(text_file([merge, "97 98"]), "line 6", "a merge of two ids", repr(merge))


def test_duplicate_merges() -> None:
    refuse(text_file(["97 98", "99 100", "97 98"]), "line 8", "not listed before", "97 98")


@pytest.mark.parametrize("token", [97, 256, 257, 260, 99999])
def test_special_id_colliding(token: int) -> None:
    specials = ["<|startoftext|> 257", f"<|endoftext|> {token}"]
    refuse(text_file(["97 98"], specials), "line 5", "from 257 to 258", str(token))


@pytest.mark.parametrize(
    "line", ["<|endoftext|>", " 257", "", "<|endoftext|> x", "a" * 129 + " 257"]
)
def test_special_that_is_not_a_name_and_an_id(line: str) -> None:
    refuse(
        text_file([], ["<|startoftext|> 256", line]),
        "line 5",
        "special token",
        repr(line[:60])[:-1],
    )


def test_special_listed_twice() -> None:
    specials = ["<|startoftext|> 256", "<|startoftext|> 257"]
    refuse(text_file([], specials), "line 5", "not listed before")


def test_missing_specials() -> None:
    speech = speech_tokenizer([]).to_text()
    refuse(speech.replace("endofspeech", "end"), "<|endofspeech|>", kind=SpeechTokenizer)
    refuse(text_file([], ["<|startoftext|> 256"]), "<|endoftext|>")
    refuse(text_file([], []), "<|startoftext|>")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(", "", "[^x]{1000000000}", r"\p{L}+|[^\p{L}]+"])
def test_the_split_pattern_is_kept_but_never_used(pattern: str) -> None:
    plain = train_text(CORPUS, 20)
    file = plain.to_text().replace(GPT4_PATTERN, pattern)
    tokenizer = TextTokenizer.from_text(file)
    for text in [*CORPUS, "a" * 40 + "!"]:
        assert tokenizer.encode(text) == plain.encode(text)
    assert tokenizer.to_text() == file


@pytest.mark.parametrize("bad", [None, b"minbpe v1", 7])
def test_files_must_be_strings(bad: str) -> None:
    refuse(bad, "must be given as a string")


def test_lone_surrogates_in_a_file() -> None:
    refuse(text_file().replace("endoftext", "end\ud800"), "lone surrogate")


def mutate(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        where = rng.randint(0, len(lines[at]))
        junk = rng.choice(
            ["0", "9", " ", "-", "\r", "\n", "\0", "é", "\ud800", "<|", "9" * 30, "٣"]
        )
        number = str(rng.choice([0, 255, 256, 1023, 1024, 1030, 2**31, 2**64]))
        lines[at] = rng.choice(
            [
                lines[other],
                lines[at][:where] + junk + lines[at][where:],
                lines[at][:where] + lines[at][where + 1 :],
                " ".join([*lines[at].split(" ")[:-1], number]),
            ]
        )
        if rng.random() < 0.2:
            del lines[at]
            lines.append("")
    return "\n".join(lines)[: rng.choice([None, None, None, rng.randrange(len(text))])]


@pytest.mark.parametrize("kind", [TextTokenizer, SpeechTokenizer])
def test_ten_thousand_damaged_files_each(
    kind: type[TextTokenizer | SpeechTokenizer],
) -> None:
    trained = train_text(CORPUS, 8) if kind is TextTokenizer else train_speech([[1, 2, 3] * 9], 6)
    good, rng = trained.to_text(), random.Random(18)
    outcomes: Counter[str] = Counter()
    tracemalloc.start()
    for _ in range(10_000):
        try:
            tokenizer = kind.from_text(mutate(good, rng))
        except TokenizerError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert kind.from_text(tokenizer.to_text()).specials == tokenizer.specials
            tokenizer.decode(range(len(tokenizer)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
    assert min(outcomes["refused"], outcomes["read"]) > 500  # the mutations reach both branches


# --- training -------------------------------------------------------------------------------


def naive_train(chunks: Sequence[Sequence[int]], n_merges: int, base: int) -> Merges:
    rows, merges = [list(chunk) for chunk in chunks], []
    for token in range(base, base + n_merges):
        counts = Counter(pair for row in rows for pair in pairwise(row))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        rows = [merge_all(row, pair, token) for row in rows]
        merges.append(pair)
    return merges


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 1023]), max_size=30), max_size=5))
def test_speech_training_equals_recounting_after_every_merge(sequences: list[list[int]]) -> None:
    merges = naive_train(sequences, 8, 1024)
    assert train_speech(sequences, len(merges)).merges == merges
    if len(merges) < 8:
        with pytest.raises(TokenizerError, match=f"only {len(merges)} merges"):
            train_speech(sequences, 8)


def test_text_training_equals_recounting_after_every_merge() -> None:
    texts = [*CORPUS * 3, "aaaa aaa aaaaa", "abababab abab"]
    chunks = [chunk.encode() for text in texts for chunk in regex.findall(GPT4_PATTERN, text)]
    assert train_text(texts, 40).merges == naive_train(chunks, 40, 256)


@pytest.mark.parametrize("n_merges", [-1, MAX_MERGES + 1, 2.5, "7"])
def test_number_of_merges_is_checked(n_merges: int) -> None:
    with pytest.raises(TokenizerError, match="n_merges"):
        train_text(CORPUS, n_merges)


def test_no_merges_and_no_corpus() -> None:
    assert (len(train_text([], 0)), len(train_speech([], 0))) == (256 + 3, 1024 + 1)


def test_training_never_makes_a_token_its_own_file_would_be_refused_for() -> None:
    tokenizer = train_speech([[5] * 20_000], 14)
    again = SpeechTokenizer.from_text(tokenizer.to_text())
    assert max(len(again.decode([token])) for token in range(1024, 1038)) == MAX_TOKEN_LENGTH
    assert again.decode(again.encode([5] * 20_000)) == [5] * 20_000
