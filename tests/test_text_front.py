"""The front end as a whole, and its pronunciation dictionary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars5.errors import TextError
from mars5.text import Piece, prepare, prepare_stream, read_lexicon, rewriter
from mars5.text.lexicon import MAX_ENTRIES, compile_lexicon


@pytest.mark.parametrize(
    ("lexicon", "text", "wanted"),
    [
        ({"nginx": "engine x"}, "Nginx, NGINX and nginx.", "engine x, engine x and engine x."),
        ({"Nginx": "engine x"}, "Nginx, NGINX and nginx.", "engine x, NGINX and nginx."),
        ({"cat": "dog"}, "cat concat cats cat's cat_", "dog concat cats dog's cat_"),
        ({"New York": "Noo York", "New": "Old"}, "New  York is New.", "Noo York is Old."),
        ({"a": "b", "b": "a"}, "a b", "b a"),
        ({"US": "U S", "us": "uz"}, "US us Us", "U S uz uz"),
        ({"C++": "see plus plus", "c#": "see sharp"}, "C++ or C#!", "see plus plus or see sharp!"),
        ({"5G": "five gee"}, "5G", "five gee"),
        ({"a.b": "x"}, "a.b acb", "x acb"),
        ({"straße": "road"}, "Straße", "road"),
        ({"um": ""}, "So um yes", "So  yes"),
        ({"x": r"\1\g<0>"}, "x", r"\1\g<0>"),
        (
            {"don't": "do not"},
            "Don't, don\u2019t, \u2018don\u2019t\u2019",
            "do not, do not, \u2018do not\u2019",
        ),
        ({"o\u2019clock": "oh clock"}, "o'clock o\u2019clock", "oh clock oh clock"),
        ({}, "same", "same"),
    ],
)
def test_lexicon(lexicon: dict[str, str], text: str, wanted: str) -> None:
    assert compile_lexicon(lexicon)(text) == wanted


APOSTROPHE = "['\u2019]"
LETTERS = "aAbBé1'\u2019.- \n"


@given(
    st.dictionaries(st.text(LETTERS, min_size=1, max_size=5), st.text("xyz", max_size=2)),
    st.text(LETTERS, max_size=40),
)
@settings(max_examples=300, deadline=None)
def test_a_lexicon_replaces_as_one_pattern_of_all_entries_would(
    lexicon: dict[str, str], text: str
) -> None:
    lexicon = {" ".join(w.split()): s for w, s in lexicon.items() if any(c.isalnum() for c in w)}
    assert compile_lexicon(lexicon)(text) == replaced_one_by_one(lexicon, text)


def replaced_one_by_one(lexicon: dict[str, str], text: str) -> str:
    """The obvious way: at each place the longest entry that fits."""
    words = sorted(lexicon, key=lambda word: (-len(word), word.islower(), word))
    made, at = "", 0
    while at < len(text):
        inside = at > 0 and re.match(r"\w", text[at - 1])
        for word in [] if inside else words:
            body = re.sub(APOSTROPHE, APOSTROPHE, re.escape(word).replace("\\ ", r"\s+"))
            flags = re.IGNORECASE if word == word.lower() else re.NOFLAG
            if found := re.compile(rf"{body}(?!\w)", flags).match(text, at):
                made, at = made + lexicon[word], found.end()
                break
        else:
            made, at = made + text[at], at + 1
    return made


@pytest.mark.parametrize(
    ("lexicon", "message"),
    [
        ([("a", "b")], "lexicon must map words to strings, got list"),
        ("ab", "lexicon must map words to strings, got str"),
        ({1: "b"}, "a key of lexicon must be a string, got int"),
        ({"a": 1}, "the value of 'a' in lexicon must be a string, got int"),
        ({"a": None}, "the value of 'a' in lexicon must be a string, got NoneType"),
        ({"": "b"}, "the key '' in lexicon has no letter or digit"),
        ({"--": "b"}, "the key '--' in lexicon has no letter or digit"),
        ({"a\0": "b"}, "a key of lexicon holds the control character"),
        ({"a" * 201: "b"}, "a key in lexicon has 201 characters, at most 200"),
        ({"a": "b" * 201}, "the value of 'a' in lexicon has 201 characters, at most 200"),
        ({str(n): "b" for n in range(MAX_ENTRIES + 1)}, "lexicon has 5001 entries, at most 5000"),
    ],
)
def test_a_lexicon_that_is_none(lexicon: Any, message: str) -> None:
    for use in (compile_lexicon, rewriter):
        with pytest.raises(TextError, match=message):
            use(lexicon)
    with pytest.raises(TextError, match=message):
        prepare_stream(["a"], lexicon)  # before anything is asked of it


def test_the_lexicon_comes_before_the_writing_out() -> None:
    assert prepare("5G is 5.", {"5g": "Five Gee"}) == [Piece("Five Gee is five.", 0.0, True)]
    assert prepare("Take CPU", {"CPU": "3 of them"})[0].text == "Take three of them"


def test_without_writing_out() -> None:
    assert prepare("It costs $5.", normalise=False)[0].text == "It costs $5."
    assert prepare("It costs US", {"US": "5"}, False)[0].text == "It costs 5"


def test_limits_hold_for_what_is_said() -> None:
    pieces = prepare("1,111,111 and " * 30, max_characters=100, max_seconds=6.0)
    assert all(len(piece.text) <= 100 and piece.seconds <= 6.0 for piece in pieces)
    assert len(pieces) > 10


def test_lists_are_said_without_their_marks() -> None:
    (piece,) = prepare("- Milk\n- 2 eggs\n* Bread")
    assert piece.text == "Milk, two eggs, Bread"


@pytest.mark.parametrize("text", ["", " ", "...", "😀", "[pause 1s]", "\n\n***\n\n"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(TextError, match="nothing to say"):
        prepare(text)
    assert list(prepare_stream([text])) == []


@pytest.mark.parametrize("text", [None, 5, b"a", "a\0b"])
def test_bad_text(text: Any) -> None:
    with pytest.raises(TextError, match="text "):
        prepare(text)
    with pytest.raises(TextError, match="text "):
        list(prepare_stream(["fine ", text]))


def test_any_length() -> None:
    assert len(prepare("This is a sentence of the book. " * 400)) == 400


def test_special_tokens_are_plain_text() -> None:
    (piece,) = prepare("<|endoftext|> is text")
    assert piece.text == "<|endoftext|> is text"


def test_chunks_are_taken_only_when_they_are_needed() -> None:
    taken = []

    def chunks() -> Any:
        for chunk in ("The first one is right here. ", "Then ", "more of it. ", "End"):
            taken.append(chunk)
            yield chunk

    pieces = prepare_stream(chunks())
    assert taken == []
    assert next(pieces).text == "The first one is right here."
    assert len(taken) == 2


WORDS = st.sampled_from(
    ["Dr.", "Smith", "paid", "$5.20", "on", "March", "5,", "2024", "at", "3:30", "pm.", "No.", "7",
     "is,", "etc.", "\n\n", "[pause", "1s]", "He"]
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, max_size=30), st.integers(1, 9))
def test_streamed_is_whole(words: list[str], size: int) -> None:
    text = "Go " + " ".join(words)
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert list(prepare_stream(chunks)) == prepare(text)


def test_a_lexicon_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(
        "\ufeff# comment\u2028of two lines\nnginx = engine x\n\nC#=C sharp\n New York =Noo York\n"
    )
    assert read_lexicon(path) == {"nginx": "engine x", "C#": "C sharp", "New York": "Noo York"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nginx", "line 2: expected 'word = how it is said', got 'nginx'"),
        (b"nginx =", "line 2: expected 'word = "),
        (b"= engine", "line 2: the key '' in lexicon has no letter"),
        (b"one = two", "line 2: there is an entry for 'one' already"),
        (b"word = " + b"x" * 300, "line 2: the value of 'word' in lexicon has 300 characters"),
        (b"caf\xe9 = cafe", "as UTF-8 text"),
    ],
)
def test_a_lexicon_file_that_is_refused(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"one = won\n" + line)
    with pytest.raises(TextError, match=said) as caught:
        read_lexicon(path)
    assert "words.txt" in str(caught.value)
    with pytest.raises(TextError, match="cannot read the lexicon"):
        read_lexicon(tmp_path)
