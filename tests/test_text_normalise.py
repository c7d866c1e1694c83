"""What is written out how, and what stays as it is."""

# ruff: noqa: RUF001 (characters that look alike are what is tested)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars5.errors import TextError
from mars5.text import normalise

CASES = {
    # numbers
    "3 apples": "three apples",
    "42": "forty-two",
    "101 dogs": "one hundred and one dogs",
    "1,234": "one thousand two hundred and thirty-four",
    "10,000": "ten thousand",
    "1000000": "one million",
    "1,000,000 people": "one million people",
    "007": "zero zero seven",
    "3.14": "three point one four",
    ".5": "point five",
    "0.05": "zero point zero five",
    "-5": "minus five",
    "−5": "minus five",
    "1,2,3": "one, two, three",
    "12345678901234567": "one two three four five six seven eight nine zero one two three four "
    "five six seven",
    "٣ and ５": "three and five",
    "747's": "seven hundred and forty-seven's",
    # ordinals
    "1st": "first",
    "22nd": "twenty-second",
    "3RD": "third",
    "100th": "one hundredth",
    "1,000th": "one thousandth",
    # numbers in names
    "MP3": "MP three",
    "B2B": "B two B",
    "H2O": "H two O",
    "F-16": "F-sixteen",
    "COVID-19": "COVID-nineteen",
    "5G": "five G",
    "a 3-year-old": "a three-year-old",
    "iPhone 15": "iPhone fifteen",
    "1.2.3": "one point two point three",
    "v2.0": "version two point zero",
    # dates
    "March 5, 2024": "March fifth, twenty twenty-four",
    "March 5": "March fifth",
    "March 5th 2024": "March fifth twenty twenty-four",
    "Jan. 5": "January fifth",
    "5 March 2024": "the fifth of March twenty twenty-four",
    "on the 5 March": "on the fifth of March",
    "the 5th of May": "the fifth of May",
    "2024-03-05": "March fifth, twenty twenty-four",
    "12/25/2024": "December twenty-fifth, twenty twenty-four",
    "25/12/2024": "December twenty-fifth, twenty twenty-four",
    "25.12.2024": "December twenty-fifth, twenty twenty-four",
    "3/4/99": "March fourth, twenty ninety-nine",
    "March 2024": "March twenty twenty-four",
    "in 1984": "in nineteen eighty-four",
    "in 1905": "in nineteen oh five",
    "in 1900": "in nineteen hundred",
    "in 2000": "in two thousand",
    "in 2005": "in two thousand and five",
    "in 1066": "in one thousand and sixty-six",
    "1990–1995": "nineteen ninety to nineteen ninety-five",
    "the 1990s": "the nineteen nineties",
    "the '90s": "the nineties",
    # times
    "3:30 pm": "three thirty p.m.",
    "3:30 p.m.": "three thirty p.m.",
    "at 5pm.": "at five p.m.",
    "10 AM": "ten a.m.",
    "3:00": "three o'clock",
    "3:05": "three oh five",
    "15:30": "fifteen thirty",
    "15:00": "fifteen hundred",
    "1:02:03": "one oh two and three seconds",
    # money
    "$5": "five dollars",
    "$1": "one dollar",
    "$5.20": "five dollars and twenty cents",
    "$0.99": "ninety-nine cents",
    "$0.01": "one cent",
    "$3.00": "three dollars",
    "$1,000.00": "one thousand dollars",
    "$3.5 million": "three point five million dollars",
    "$5k": "five thousand dollars",
    "$5-10": "five to ten dollars",
    "-$5": "minus five dollars",
    "€20": "twenty euros",
    "20 €": "twenty euros",
    "£1.50": "one pound and fifty pence",
    "¥500": "five hundred yen",
    "20 USD": "twenty US dollars",
    "US$5": "five US dollars",
    "€3bn": "three billion euros",
    "$5/hour": "five dollars per hour",
    # percentages and units
    "50%": "fifty percent",
    "5.5 %": "five point five percent",
    "5-10%": "five to ten percent",
    "100 km/h": "one hundred kilometres per hour",
    "1 km": "one kilometre",
    "20°C": "twenty degrees Celsius",
    "1 °C": "one degree Celsius",
    "-5 °F": "minus five degrees Fahrenheit",
    "5kg": "five kilograms",
    "3 m²": "three square metres",
    "100Hz": "one hundred hertz",
    "16 GB": "sixteen gigabytes",
    "6 ft": "six feet",
    "5'10\"": "five foot ten",
    "10–20 km": "ten to twenty kilometres",
    "10 mins": "ten minutes",
    # telephone
    "555-1234": "five five five, one two three four",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "+44 20 7946 0958": "plus four four, two zero, seven nine four six, zero nine five eight",
    # ranges, fractions, arithmetic
    "pages 5-10": "pages five to ten",
    "5–10": "five to ten",
    "a 2-1 win": "a two to one win",
    "7:3": "seven to three",
    "1/2": "one half",
    "3/4": "three quarters",
    "2 1/2": "two and a half",
    "2½": "two and a half",
    "⅔": "two thirds",
    "5/8": "five eighths",
    "7/200": "seven over two hundred",
    "24/7": "twenty-four seven",
    "2+2=4": "two plus two equals four",
    "3×4": "three times four",
    "10 - 3": "ten minus three",
    "~5": "about five",
    "±2": "plus or minus two",
    "x²": "x squared",
    # roman numerals
    "Henry VIII": "Henry the Eighth",
    "Louis XIV": "Louis the Fourteenth",
    "Chapter IV": "Chapter Four",
    "chapter ii": "chapter ii",
    "World War II": "World War Two",
    "George I think": "George I think",
    "IV drip": "IV drip",
    # symbols
    "salt & pepper": "salt and pepper",
    "AT&T": "AT and T",
    "#5": "number five",
    "#tag": "hashtag tag",
    "@user": "at user",
    "me @ home": "me at home",
    "😀 Yes ✨": " Yes",
    "**Bold** and *it* `x`": "Bold and it x",
    "# Title": "Title",
    "- item": "item",
    "[text](http://a.com/b)": "text",
    "Don’t “go”… now": 'Don\'t "go"... now',
    # abbreviations
    "Mr. Smith": "Mister Smith",
    "Mr Smith": "Mister Smith",
    "Dr. Jones on Elm Dr.": "Doctor Jones on Elm Drive.",
    "St. Paul on Main St.": "Saint Paul on Main Street.",
    "Prof. X": "Professor X",
    "No. 5": "Number five",
    "no. 5": "number five",
    "p. 12": "page twelve",
    "pp. 5-10": "pages five to ten",
    "No. I won't.": "No. I won't.",
    "e.g. this": "for example this",
    "i.e. that": "that is that",
    "A vs. B": "A versus B",
    "pears, etc.": "pears, et cetera.",
    "pears, etc., and": "pears, et cetera, and",
    "Acme Inc. said": "Acme Incorporated said",
    "Smith et al. said": "Smith and others said",
    # addresses
    "www.example.com": "w w w dot example dot com",
    "https://example.com/a-b.": "example dot com slash a dash b.",
    "foo.bar@mail.co.uk": "foo dot bar at mail dot co dot uk",
    "see example.org, ok": "see example dot org, ok",
}

SAME = [
    "",
    "Plain words, with commas, stay.",
    "This is VERY important, and U.S. too.",
    "Wait... what?! No; yes: (perhaps).",
    "two  blanks\nand a line",
    "state-of-the-art and/or he/she",
    "I am, you are. A. A. Milne.",
    "naïve café 字 שלום",
    "St. is alone",
    "[laugh] out",
]


@pytest.mark.parametrize(("written", "spoken"), CASES.items())
def test_is_written_out(written: str, spoken: str) -> None:
    assert normalise(written) == spoken
    sentence = normalise(f"She saw {written} there.")
    assert not any(character.isdigit() for character in sentence)


@pytest.mark.parametrize("text", SAME)
def test_stays_as_it_is(text: str) -> None:
    assert normalise(text) == text


@pytest.mark.parametrize("written", CASES)
def test_twice_is_once(written: str) -> None:
    assert normalise(normalise(written)) == normalise(written)


PARTS = st.sampled_from(
    [*CASES, *SAME, ".", ",", "-", "–", "#", "*", "$", "%", "°", "1", "2024", "/", ":", "(", "@"]
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(PARTS | st.text(max_size=3), max_size=8), st.sampled_from(["", " "]))
def test_any_text_twice_is_once_and_holds_no_digits(parts: list[str], blank: str) -> None:
    try:
        once = normalise(blank.join(parts))
    except TextError:
        return  # control characters
    assert normalise(once) == once
    assert not any(character.isdecimal() for character in once)


@settings(deadline=None, max_examples=100)
@given(st.text("abcdefgXYZ ,", max_size=60))
def test_words_capitals_and_commas_are_untouched(text: str) -> None:
    assert normalise(text) == text


@pytest.mark.parametrize("language", ["de", "EN", "", None, 5])
def test_other_languages_are_refused(language: Any) -> None:
    with pytest.raises(TextError, match=r"language must be 'en'.*normalise=False"):
        normalise("5", language)


@pytest.mark.parametrize("bad", [None, 5, b"a", "a\0b", "\ud800"])
def test_bad_text(bad: Any) -> None:
    with pytest.raises(TextError, match="text "):
        normalise(bad)


@pytest.mark.parametrize("unit", ["a", "1", ".", "[a", '"', "#", "a@", "1-", " ", "*", "www."])
def test_odd_texts_are_finished(unit: str) -> None:
    spoken = normalise(unit * 10_000)
    assert not any(character.isdigit() for character in spoken)
