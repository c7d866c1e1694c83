"""Sentences with numbers, written as they are said: prices, times, dates, distances, codes."""

from __future__ import annotations

import random

ONES = [
    "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"
]  # fmt: skip
TENS = [
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty",
    "ninety"
]  # fmt: skip
ORDINALS = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh",
    "eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth",
    "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth"
]  # fmt: skip
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December"
]  # fmt: skip

FRAMES = (
    "It costs {n} dollars and {small} cents.",
    "That will be {n} pounds, please.",
    "The price went up by {small} percent.",
    "About {small} point {digit} percent of them agreed.",
    "The meeting is on {month} {day}.",
    "She was born on {month} {day}, {year}.",
    "In {year} there were {n} houses here.",
    "The train leaves at {hour} {minutes}.",
    "It is {hour} {minutes} in the {part}.",
    "We drove {n} kilometres in {small} hours.",
    "The parcel weighs {small} point {digit} kilograms.",
    "My number is {digit} {digit} {digit}, {digit} {digit} {digit} {digit}.",
    "Room {n} is on the {ordinal} floor.",
    "Page {n}, line {small}.",
    "There are {n} people and {small} cars.",
    "He finished in {ordinal} place with {n} points.",
    "It is minus {small} degrees outside.",
    "The code is {digit} {digit} {digit} {digit}.",
    "I counted {n} of them twice.",
    "Take two thirds of {n}.",
    "A quarter of the {n} tickets were sold.",
    "Flight {digit} {digit} {digit} leaves from gate {small}.",
)


def cardinal(number: int) -> str:
    """0 to 999 999 in English words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = TENS[number // 10 - 2], number % 10
        return f"{tens}-{ONES[ones]}" if ones else tens
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            head = f"{cardinal(number // size)} {name}"
            if not rest:
                return head
            return f"{head} and {cardinal(rest)}" if rest < 100 else f"{head} {cardinal(rest)}"
    raise ValueError(number)


def _year(rng: random.Random) -> str:
    century, rest = rng.choice([17, 18, 19, 19, 20]), rng.randrange(10, 100)
    return f"{cardinal(century)} {cardinal(rest)}"


def numeric_sentence(rng: random.Random) -> str:
    """One sentence with numbers in words."""
    frame = rng.choice(FRAMES)
    while "{digit}" in frame:
        frame = frame.replace("{digit}", rng.choice(ONES[:10]), 1)
    sentence = frame.format(
        n=cardinal(rng.choice([rng.randrange(20, 100), rng.randrange(100, 1000),
                               rng.randrange(1, 10) * 1000])),
        small=cardinal(rng.randrange(2, 60)),
        hour=cardinal(rng.randrange(1, 13)),
        minutes=rng.choice(["thirty", "fifteen", "forty-five", "twenty", "o'clock", "oh five",
                            "ten", "fifty"]),
        part=rng.choice(["morning", "afternoon", "evening"]),
        month=rng.choice(MONTHS),
        day=rng.choice(ORDINALS),
        ordinal=rng.choice(ORDINALS[:12]),
        year=_year(rng),
    )  # fmt: skip
    return sentence[0].upper() + sentence[1:]
