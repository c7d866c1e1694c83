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
    "2024/03/05": "March fifth, twenty twenty-four",
    "03-05-2024": "March fifth, twenty twenty-four",
    "2024-03-05T10:20:30Z": "March fifth, twenty twenty-four, ten twenty and thirty seconds UTC",
    "2024-03-05T10:20:30.123+02:00": "March fifth, twenty twenty-four, ten twenty and thirty "
    "seconds",
    "2024-13-05": "two zero two four, one three, zero five",
    "Jan 5": "January fifth",
    "Jan 2024": "January twenty twenty-four",
    "Jan 5-7": "January fifth to seventh",
    "January 5–7, 2024": "January fifth to seventh, twenty twenty-four",
    "5-7 May": "the fifth to the seventh of May",
    "Jan 30-Feb 2": "January thirtieth to February second",
    "Mon, Jan. 5": "Monday, January fifth",
    "He sat Mar 5": "He sat March fifth",
    "2023/24": "twenty twenty-three twenty-four",
    "3rd-5th": "third to fifth",
    "1990s-2000s": "nineteen nineties to two thousands",
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
    "6.30pm": "six thirty p.m.",
    "6.30-7.30 p.m.": "six thirty to seven thirty p.m.",
    "7am-9pm": "seven a.m. to nine p.m.",
    "9-11am": "nine to eleven a.m.",
    "10:30 – 11:45": "ten thirty to eleven forty-five",
    "At 5pm EST. Then": "At five p.m. EST. Then",
    "Mon-Fri": "Monday to Friday",
    "Mon.-Fri. 9-5": "Monday to Friday nine to five",
    "in 2024 ~50 came": "in twenty twenty-four about fifty came",
    "0x10": "zero x ten",
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
    "$5-$10": "five to ten dollars",
    "$5–$10 million": "five to ten million dollars",
    "$1.50-$2.50": "one dollar and fifty cents to two dollars and fifty cents",
    "$500k-$1M": "five hundred thousand dollars to one million dollars",
    "$10 - 5": "ten dollars - five",
    "€12,50": "twelve euros and fifty cents",
    "2,50 €": "two euros and fifty cents",
    "99¢": "ninety-nine cents",
    "$100s": "hundreds of dollars",
    "$20s": "twenties",
    "1,000s of people": "thousands of people",
    "100s of cars": "hundreds of cars",
    "10s of thousands": "tens of thousands",
    "5,000s": "five thousands",
    "10s of it": "ten seconds of it",
    "2.5bn people": "two point five billion people",
    "10 000 people": "ten thousand people",
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
    "5%-10%": "five to ten percent",
    "5% – 10%": "five to ten percent",
    "5%-10 times": "five percent to ten times",
    "20°-25°C": "twenty to twenty-five degrees Celsius",
    "500m-1km": "five hundred metres to one kilometre",
    "+5%": "plus five percent",
    "~5 km": "about five kilometres",
    "18+": "eighteen plus",
    "10²": "ten squared",
    "6 ft. tall": "six feet tall",
    "5 min., then": "five minutes, then",
    "5 min. Then": "five minutes. Then",
    "a 10 in. pan": "a ten inches pan",
    "5 ft 10 in tall": "five foot ten tall",
    "1,200 sq ft": "one thousand two hundred square feet",
    "1 Ω": "one ohm",
    "5 \u2126 or 5 \u03a9": "five ohms or five ohms",
    "4.7 kΩ": "four point seven kilohms",
    "5\u03bcm, 5 \u00b5m": "five micrometres, five micrometres",
    "5-10 μs": "five to ten microseconds",
    "3 μm²": "three square micrometres",
    "5 μg/kg": "five micrograms per kilogram",
    "in μm, per kΩ": "in micrometres, per kilohm",
    "a μm-thick film": "a micrometre-thick film",
    # Greek letters
    "π, Ω and μ": "pi, omega and mu",
    "Δt, \u2206t": "delta t, delta t",
    "ΔT = 5 °C": "delta T equals five degrees Celsius",
    "Δθ": "delta theta",
    "2πr": "two pi r",
    "πr²": "pi r squared",
    "3π/2, λ/20": "three pi over two, lambda over twenty",
    "sinθ": "sin theta",
    "β = 3": "beta equals three",
    "±3σ": "plus or minus three sigma",
    "NF-κB and α-helices": "NF-kappa B and alpha-helices",
    "β1, β_2": "beta one, beta_two",
    "&alpha; is 5&nbsp;&micro;F": "alpha is five microfarads",
    "2 tbsp. sugar": "two tablespoons sugar",
    "1/2 tsp.": "one half teaspoon.",
    "1½ lb. beef": "one and a half pounds beef",
    # telephone
    "555-1234": "five five five, one two three four",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "+44 20 7946 0958": "plus four four, two zero, seven nine four six, zero nine five eight",
    "555 0142": "five five five, zero one four two",
    "(020) 7946 0958": "zero two zero, seven nine four six, zero nine five eight",
    "Call 911": "Call nine one one",
    "a 911 call": "a nine one one call",
    "Call 555 1234": "Call five five five, one two three four",
    "call 100 people": "call one hundred people",
    "They call 1000000 people": "They call one million people",
    "We called 311 customers": "We called three hundred and eleven customers",
    "call 911 now": "call nine one one now",
    "call 8005550142": "call eight zero zero five five five zero one four two",
    "Dial 911": "Dial nine one one",
    "1-800-FLOWERS": "one eight hundred, FLOWERS",
    "978-0-13-468599-1": "nine seven eight, zero, one three, four six eight five nine nine, one",
    "an 11-5-2 season": "an eleven, five, two season",
    "New York, NY 10001": "New York, NY one zero zero zero one",
    "in May, EU 27000 firms": "in May, EU twenty-seven thousand firms",
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
    "24/7/365": "twenty-four seven three sixty-five",
    "50/50": "fifty fifty",
    "80/20": "eighty twenty",
    "9/11": "nine eleven",
    "10/10": "ten out of ten",
    "4/4 time": "four four time",
    "Type XL": "Type XL",
    "Chapter XL": "Chapter Forty",
    "€1,50, and": "one euro and fifty cents, and",
    "8/10": "eight out of ten",
    "4.5/5": "four point five out of five",
    "3/10 of a mile": "three tenths of a mile",
    "2 3/10": "two and three tenths",
    "120/80": "one hundred and twenty over eighty",
    "a 2x4": "a two by four",
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
    "World War I": "World War One",
    "Super Bowl XLVIII": "Super Bowl Forty-eight",
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
    "A+ but C++": "A plus but C++",
    # HTML
    "Tom &amp; Jerry&nbsp;run": "Tom and Jerry run",
    "it&#39;s 5&ndash;10": "it's five to ten",
    "caf&eacute; &amp;nbsp;": "café  ",
    "Q&As; &#129;": "Q and As; ",
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
    "est. 1990": "established nineteen ninety",
    "EST. 1990": "established nineteen ninety",
    "She has MS. It": "She has MS. It",
    "MS. SMITH": "Miz SMITH",
    "in Denver, CO. He": "in Denver, CO. He",
    "ACME CO. SAID": "ACME Company SAID",
    "Apt. 4B": "Apartment four B",
    "w/ milk, w/o sugar": "with milk, without sugar",
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
    "το φως, ἀρχή, ΑΦΑ, σ̂ and Ηello",
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


@pytest.mark.parametrize(
    "unit", ["a", "1", ".", "[a", '"', "#", "a@", "1-", " ", "*", "www.", "Δ", "μ/"]
)
def test_odd_texts_are_finished(unit: str) -> None:
    spoken = normalise(unit * 10_000)
    assert not any(character.isdigit() for character in spoken)
