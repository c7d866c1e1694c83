"""Abbreviations: which full stops do not end a sentence, and how the short forms are said."""

from __future__ import annotations

import re

from mars5.text.rules import Rule

# Said before a name: their full stop never ends a sentence.
TITLES = {
    "mr": "Mister", "mrs": "Missus", "ms": "Miz", "dr": "Doctor", "prof": "Professor",
    "gen": "General", "col": "Colonel", "capt": "Captain", "cpt": "Captain", "lt": "Lieutenant",
    "sgt": "Sergeant", "maj": "Major", "adm": "Admiral", "sen": "Senator",
    "rep": "Representative", "gov": "Governor", "pres": "President", "rev": "Reverend",
    "hon": "Honourable", "mt": "Mount", "st": "Saint",
}  # fmt: skip

# Said in the middle of a sentence: nor does theirs.
LINKS = {
    "e.g": "for example", "i.e": "that is", "vs": "versus", "cf": "compare", "viz": "namely",
    "ca": "about", "approx": "approximately", "incl": "including", "excl": "excluding",
    "resp": "respectively",
}  # fmt: skip

# Followed by a number; else "no." is a word, and "fig." a fruit.
NUMBERED = {
    "no": "number", "nos": "numbers", "nr": "number", "p": "page", "pp": "pages",
    "vol": "volume", "vols": "volumes", "ch": "chapter", "fig": "figure", "figs": "figures",
    "sec": "section", "art": "article", "eq": "equation", "tel": "telephone",
    "apt": "apartment", "ste": "suite", "ext": "extension",
}  # fmt: skip

MONTHS = {
    "jan": "January", "feb": "February", "mar": "March", "apr": "April", "jun": "June",
    "jul": "July", "aug": "August", "sep": "September", "sept": "September", "oct": "October",
    "nov": "November", "dec": "December",
}  # fmt: skip

# May end a sentence: whether they do is told by the word that follows.
EITHER = {
    "etc": "et cetera", "inc": "Incorporated", "ltd": "Limited", "co": "Company",
    "corp": "Corporation", "jr": "Junior", "sr": "Senior", "ave": "Avenue", "blvd": "Boulevard",
    "rd": "Road", "dept": "department", "est": "established",
    "et al": "and others",
}  # fmt: skip
_EITHER_ONLY = {"al", "ph.d", "bros", "hrs", "mins", "lbs", "ft", "st"}
_DAYS = {"mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun"}

# Something else in capitals (a time, a state, an illness), unless all of the text is in capitals.
_NAMES_IN_CAPITALS = frozenset({"EST", "CA", "CO", "MS", "MT"})
_CAPITALS = re.compile(r"\.?\s+[A-Z]{2}")

# Words that begin a sentence far more often than a name.
STARTERS = frozenset(
    """the a an this that these those there here he she it they we you i my your his her its our
    their who what when where why how which if in on at by for from with after before as but and
    or so yet nor then thus however although though while because since until once yes no not
    please let do does did is are was were can could will would should may might must have has
    had some many most all each every both one two another such even just only also still now
    today tomorrow yesterday suddenly finally later first second next instead meanwhile perhaps
    maybe well oh okay""".split()  # noqa: SIM905
)

_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_WORDS = "|".join


def starts_sentence(word: str) -> bool:
    """Whether `word` tells that the abbreviation before it ended a sentence."""
    return word[:1].isupper() and word.lower() in STARTERS


def kind_of(word: str) -> str:
    """What the full stop after `word` may be: "never", "number", "either" or "end" of a sentence.

    "number" is no end if a number follows; "either" is one if `starts_sentence` says so.
    """
    low = word.lower()
    if low in EITHER or low in _EITHER_ONLY or word in _NAMES_IN_CAPITALS:
        return "either"
    if low in TITLES or low in LINKS:
        return "never"
    if low in NUMBERED and word != "P":
        return "number"
    if _DOTTED.fullmatch(word) or (len(word) == 1 and (word.isupper() or word.islower())):
        return "either"
    return "either" if word[:1].isupper() and (low in MONTHS or low in _DAYS) else "end"


def _ending(match: re.Match[str]) -> str:
    """The full stop of a short form that also ended a sentence."""
    rest = re.compile(r"[\"')\]]*(?:\s*\Z|\s+(\w+))").match(match.string, match.end())
    return "." if rest and (rest[1] is None or starts_sentence(rest[1])) else ""


def _is_name(match: re.Match[str]) -> bool:
    """Whether it is "MS" as in "She has MS. It hurts", and not "MS. SMITH"."""
    return match[1] in _NAMES_IN_CAPITALS and not _CAPITALS.match(match.string, match.end(1))


def _title(match: re.Match[str]) -> str:
    return match[0] if _is_name(match) else TITLES[match[1].lower().rstrip(".")]


def _link(match: re.Match[str]) -> str:
    return match[0] if _is_name(match) else _cased(match[1], LINKS[match[1].lower()])


def _either(match: re.Match[str]) -> str:
    if _is_name(match):
        return match[0]
    return EITHER[" ".join(match[1].lower().split())] + _ending(match)


def _street(match: re.Match[str]) -> str:
    return {"St": "Street", "Dr": "Drive"}[match[1]] + ("." if match[2] and _ending(match) else "")


NUMBER_RULES: list[Rule] = [
    (
        re.compile(rf"(?<![\w.])({_WORDS(NUMBERED)})\.\s?(?=[0-9])", re.IGNORECASE),
        lambda m: _cased(m[1], NUMBERED[m[1].lower()]) + " ",
    ),
    (re.compile(r"(?<![\w.])EST\.(?=\s[0-9]{4}\b)"), lambda _: "established"),
]

WORD_RULES: list[Rule] = [
    # "Elm St." and "Elm Dr.", but "in St. Louis" and "to Dr. Smith".
    (
        re.compile(r"(?<=[a-z] )(?<!\. )\b(St|Dr)(\.)?(?=[\"')\]]*(?:\s*\Z|,|\s+[a-z]))"),
        _street,
    ),
    (re.compile(rf"\b((?i:{_WORDS(t for t in TITLES if t != 'st')}))\.(?=\s+[^\W\d_])"), _title),
    (re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof|St\.?)(?=\s+[A-Z])"), _title),
    (
        re.compile(rf"(?<![\w.])({_WORDS(map(re.escape, LINKS))})\.(?=[\s,(])", re.IGNORECASE),
        _link,
    ),
    (
        re.compile(rf"(?<![\w.])(et\s+al|{_WORDS(k for k in EITHER if k != 'et al')})\.(?!\w)",
                   re.IGNORECASE),
        _either,
    ),
    (re.compile(r"(?<!\w)([wW])/(?=\s)"), lambda m: _cased(m[1], "with")),
    (re.compile(r"(?<!\w)([wW])/o(?=\s)"), lambda m: _cased(m[1], "without")),
]  # fmt: skip


def _cased(written: str, spoken: str) -> str:
    """`spoken` with a capital if `written` begins with one."""
    return spoken[0].upper() + spoken[1:] if written[0].isupper() else spoken
