"""Where text is cut, and which pauses lie between the pieces."""

# ruff: noqa: RUF001 (characters that look alike are what is tested)

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars5.errors import TextError
from mars5.text import Piece, PieceStream, split_text
from mars5.text.cutting import CLAUSE_PAUSE, WORD_PAUSE, seconds_of
from mars5.text.pieces import MIN_PIECE_SECONDS, PARAGRAPH_PAUSE, SENTENCE_PAUSE
from mars5.text.sentences import MAX_SENTENCE, SentenceStream


def sentences(text: str) -> list[str]:
    stream = SentenceStream()
    return [s.text for s in [*stream.feed(text), *stream.flush()] if s.text]


# "|" stands where a sentence ends.
SENTENCES = [
    "Hello there.| How are you?| Fine!",
    "Mr. Smith and Mrs. Jones met Dr. Brown.| They talked.",
    "It is e.g. nice, i.e. good.| Yes.",
    "He lives in the U.S. and she in the U.K. too.",
    "He moved to the U.S.| He likes it.",
    "Take No. 5.| No.| I won't.",
    "See p. 12, Fig. 3 and vol. II for more.| Then stop.",
    "J. R. R. Tolkien and George W. Bush met.| A. A. Milne did not.",
    "It was plan B.| Then came C.",
    "It was I.| He knew.",
    "Pi is 3.14.| Really.",
    "Come at 5 p.m. or later.| Come at 5 p.m.| The door is open.",
    "Come at 10:30.| Leave at 11:00.",
    "Apples, pears, etc. are fruit.| Apples, etc.| The end.",
    "Acme Inc. sells it.| He works for Acme Inc.| She does too.",
    "Jan. 5 is a Mon. in May.| Next.",
    "He may.| She will.",
    "In the sun.| The end.| He sat.| Mary stood.",
    "Visit www.example.com/a?b=1 now.| Mail a.b@example.co.uk.| Thanks.",
    "Is it at example.com?| Yes.",
    'He said: "Stop!" and left.| "Why?" she asked.| "Go."| They went.',
    "“Hello.”| “Hi!” he said.",
    "«Oui.»| (It was late.)| [Really.]| Then no.",
    "Well... perhaps.| Well...| Perhaps.| Wait… what?",
    "Well . . . i mean it.| Well . . .| I mean it.",
    "What?!| No!!!| Ok.",
    "She works at Yahoo! in accounting.| Yahoo!| Great.",
    "hello there. |how are you? |i am fine",
    "It was 1999.| Then 2000 came.",
    "1. Buy milk.| 2. Buy eggs.",
    "1) Buy milk\n|2) Buy eggs\n|3) Go home",
    "- milk\n|- eggs\n|* bread\n|• tea",
    "# Heading\n|Then text follows here.",
    "Chapter One\n|It was a dark night.",
    "Chapter One\n\n|it was a dark night\n\n|and cold",
    "This is a line that was wrapped by hand at\nsome column, and it goes on after\nthat.| Next.",
    "The woods are lovely, dark and deep,\nBut I have promises to keep.",
    "He met Mr.\nSmith there.| Bye.",
    "— Hello, he said.\n|— Goodbye!\n|– So long.",
    "これは文です。|次の文です。|「はい。」|終わり",
    "क्या हुआ।| ठीक है।",
    "Ph.D. students and M.D. holders came.| All left.",
    "Smith et al. found it.| It works.",
    "Bake for 1½ hr. then cool.| Wait 5 min.| Then eat 6 oz. of it.",
    "At 5pm EST.| Then she was told of MS. as it was.| It is in Apt. 4B, ext. 5.",
    "St. Paul is on Main St.| The shop is there.",
    "Gen. Lee, Capt. Kirk and Lt. Dan vs. Col. Mustard.",
    "No end at all",
    "It cost $5.50.| 20 people paid.",
    "Version 2.0.1 is out.| Get it at 1.2.3.4 now.",
    "Mr. and Mrs. Approx. 5 people. |ok",
]


@pytest.mark.parametrize("marked", SENTENCES)
def test_sentences(marked: str) -> None:
    wanted = [" ".join(part.split()) for part in marked.split("|")]
    assert sentences(marked.replace("|", "")) == wanted


PIECES = [
    ("That one is long enough. Yes.", [("That one is long enough.", SENTENCE_PAUSE), ("Yes.", 0)]),
    ("Yes. No. I will go there.", [("Yes. No. I will go there.", 0)]),
    ("Milk\nEggs\nBread", [("Milk, Eggs, Bread", 0)]),
    ("Yes.\n\nNo.", [("Yes.", PARAGRAPH_PAUSE), ("No.", 0)]),
    ("Yes.\n\n***\n\nNo.", [("Yes.", PARAGRAPH_PAUSE), ("No.", 0)]),
    ("Yes. 😀 \n\nNo.", [("Yes.", PARAGRAPH_PAUSE), ("No.", 0)]),
    ("I think [pause 0.5s] so.", [("I think", 0.5), ("so.", 0)]),
    ("I think [pause 300ms] so.", [("I think", 0.3), ("so.", 0)]),
    ("I think [PAUSE 2 s]so.", [("I think", 2), ("so.", 0)]),
    ("Yes.[pause 1s] [pause 1s]\n\nNo.", [("Yes.", 2), ("No.", 0)]),
    ("Yes. [pause 0s] No.", [("Yes.", 0), ("No.", 0)]),
    ("Bye. [pause 1s]", [("Bye.", 1)]),
    ("[laugh] Bye [pause] [pause -1s]", [("[laugh] Bye [pause] [pause -1s]", 0)]),
    ("Say \\[pause 1s] now", [("Say [pause 1s] now", 0)]),
    ("Say \\[pause 99s] \\ now", [("Say [pause 99s] \\ now", 0)]),
    ("Say [pause", [("Say [pause", 0)]),
    ("", []),
    (" \n ", []),
    ("...", []),
    ("[pause 1s]", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), PIECES)
def test_pieces_and_pauses(text: str, wanted: list[tuple[str, float]]) -> None:
    assert [(piece.text, piece.pause_after) for piece in split_text(text)] == wanted


def test_pauses_before_the_first_word() -> None:
    assert split_text("[pause 1s] [pause 500ms] Hi") == [Piece("Hi", 0.0, True, 1.5)]
    assert split_text("... [pause 1s] Hi")[0].pause_before == 1.0


def test_paragraphs_are_marked_at_their_first_piece() -> None:
    long = "One is quite long enough. Two is quite long enough, too.\n\nThree is there. "
    assert [piece.starts_paragraph for piece in split_text(long)] == [True, False, True]
    cut = split_text("first words, " * 60)
    assert [piece.starts_paragraph for piece in cut] == [True] + [False] * (len(cut) - 1)


@pytest.mark.parametrize("tag", ["[pause 61s]", "[pause 60001ms]", "[pause 999999s]"])
def test_pauses_have_a_limit(tag: str) -> None:
    with pytest.raises(TextError, match=re.escape(f"{tag} is longer than 60 s")):
        split_text(f"a {tag} b")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("aaaa bbbb; cccc dddd eeee ffff", ["aaaa bbbb;", "cccc dddd eeee ffff"]),
        ("aaaa bbbb, cccc dddd eeee ffff", ["aaaa bbbb,", "cccc dddd eeee ffff"]),
        ("aaaa bbbb cc and dddd eeee ff", ["aaaa bbbb cc", "and dddd eeee ff"]),
        ("aaaa bbbb — cccc dddd eeee f", ["aaaa bbbb —", "cccc dddd eeee f"]),
        ("aaaa bbbb cccc dddd eeee ffff", ["aaaa bbbb cccc", "dddd eeee ffff"]),
        ('aaaa aaa "bbbb, cccc" dddd ee', ["aaaa aaa", '"bbbb, cccc" dddd ee']),
        ("aaaaaa 5 000 000 bbbbbb ccccccc", ["aaaaaa 5 000 000", "bbbbbb ccccccc"]),
        ("a" * 40, ["a" * 20, "a" * 20]),
        ("aaaaa " + "b" * 18, ["aaaaa", "b" * 18]),
        ("aaaa bbb 1,000,000 cccc dddd", ["aaaa bbb 1,000,000", "cccc dddd"]),
    ],
)
def test_long_sentences_are_cut_at_the_best_place(text: str, wanted: list[str]) -> None:
    assert [piece.text for piece in split_text(text, max_characters=20)] == wanted


def test_pauses_of_cut_sentences() -> None:
    pieces = split_text("aaaa bbbb, cccc dddd eeee ffff " + "g" * 30, max_characters=20)
    assert [piece.pause_after for piece in pieces[:2]] == [CLAUSE_PAUSE, WORD_PAUSE]
    assert pieces[-2].pause_after == 0.0  # inside a word


def test_a_combining_mark_stays_with_its_letter() -> None:
    pieces = split_text("a" * 19 + "e\u0301" * 30, max_characters=20)
    assert not any(piece.text.startswith("\u0301") for piece in pieces)


def test_no_sentence_is_endless() -> None:
    assert all(len(found) <= MAX_SENTENCE for found in sentences("word " * 1000 + "x" * 3000))


SNIPPETS = st.sampled_from(
    ["Mr. ", "Hi. ", "e.g. ", "U.S. ", "The ", "5 ", "3.14 ", "No. ", "! ", "? ", "... ", "…", '"',
     "”", "“", "(", ")", "\n", "\n\n", "\n- ", "1. ", "# ", "[pause 1s]", "[pause ", "\\", "[",
     "字", "。", "—", "😀", "word " * 30, "x" * 90, ", ", "; ", "e\u0301", "٣"]
)  # fmt: skip
TEXTS = st.lists(SNIPPETS | st.text(max_size=4), max_size=12).map("".join)


def printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c in "\n ")


def spoken(text: str) -> list[str]:
    """Letters and digits of `text` in order, without those of pause tags."""
    plain = " ".join(text.split())
    tag = r"(?i)(\\?)(\[pause [0-9]+(?:\.[0-9]+)? ?m?s\])"
    return [c for c in re.sub(tag, lambda m: m[2] if m[1] else "", plain) if c.isalnum()]


@settings(deadline=None, max_examples=200)
@given(TEXTS.map(printable))
def test_every_letter_survives_in_order_within_the_limits(text: str) -> None:
    pieces = split_text(text, 40, 4.0)
    assert [c for piece in pieces for c in piece.text if c.isalnum()] == spoken(text)
    for piece in pieces:
        assert 1 <= len(piece.text) <= 40
        assert seconds_of(piece.text) <= 4.0 + 1e-6
        assert piece.text == piece.text.strip()
        assert any(c.isalnum() for c in piece.text)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from(["one", "two,", "three;", "four.", "Five!", "“six”", "(seven)", "8.5"]),
        max_size=60,
    )
)
def test_every_character_of_ordinary_text_survives(words: list[str]) -> None:
    text = " ".join(words)
    assert " ".join(piece.text for piece in split_text(text, 40)) == text


@settings(deadline=None, max_examples=200)
@given(TEXTS.map(printable), st.data())
def test_incremental_is_whole(text: str, data: st.DataObject) -> None:
    stream, pieces, at = PieceStream(40, 4.0), [], 0
    while at < len(text):
        size = data.draw(st.integers(1, 12))
        pieces += stream.feed(text[at : at + size])
        at += size
    assert pieces + stream.flush() == split_text(text, 40, 4.0)


@pytest.mark.parametrize("marked", SENTENCES)
def test_single_characters_are_enough(marked: str) -> None:
    text = marked.replace("|", "")
    assert list(PieceStream().run(text)) == split_text(text)


def test_a_piece_is_given_as_soon_as_its_sentence_is_over() -> None:
    stream = PieceStream()
    assert stream.feed("This is the first sentence.") == []
    assert stream.feed(" ") == []
    assert stream.feed("A") == [Piece("This is the first sentence.", SENTENCE_PAUSE, True)]
    assert stream.feed("nd this is the second, by Acme Inc. Th") == []
    assert [p.text for p in stream.feed("e ")] == ["And this is the second, by Acme Inc."]
    assert stream.feed("end is near me\n") == []
    assert [p.text for p in stream.feed("\nThird")] == ["The end is near me"]
    assert [p.text for p in stream.flush()] == ["Third"]
    assert stream.flush() == []


def test_estimated_seconds() -> None:
    assert split_text("a" * 15)[0].seconds == pytest.approx(1.0)
    assert seconds_of("文" * 4) == pytest.approx(1.0)
    assert seconds_of("1" * 20) == pytest.approx(7.0)
    assert MIN_PIECE_SECONDS < 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_characters", 19), ("max_characters", 5001), ("max_characters", "9"),
     ("max_characters", True), ("max_seconds", 1), ("max_seconds", float("nan")),
     ("max_seconds", 61), ("max_seconds", None)],
)  # fmt: skip
def test_limits_have_ranges(name: str, value: Any) -> None:
    with pytest.raises(TextError, match=f"{name} must be a number from"):
        split_text("a", **{name: value})


@pytest.mark.parametrize("bad", [None, 5, b"a", "a\0b", "\ud800"])
def test_bad_text(bad: Any) -> None:
    with pytest.raises(TextError, match="text "):
        split_text(bad)


@pytest.mark.parametrize("unit", ["a", " ", ".", '"', "\n"])
def test_a_megabyte_of_odd_text_is_finished(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    letters = sum(c.isalnum() for piece in split_text(text) for c in piece.text)
    assert letters == sum(c.isalnum() for c in text)


@pytest.mark.parametrize("unit", ["a", " ", ".", "\n", "[", "[pause 0s]", "Mr. "])
def test_odd_text_in_single_characters_keeps_little(unit: str) -> None:
    stream = PieceStream()
    for character in unit * (20_000 // len(unit)):
        stream.feed(character)
        assert len(stream._sentences._text) < 2 * MAX_SENTENCE
    stream.flush()
