"""The lists of sentences that are spoken in an evaluation: five of this package, or any file."""

from __future__ import annotations

from pathlib import Path

from mars5.errors import TextError

DATA = Path(__file__).parent / "data"
LISTS = ("everyday", "numbers_names_questions", "paragraphs", "hard", "tuning")


def list_path(name: str) -> Path:
    """The file of a shipped list."""
    return DATA / f"{name}.txt"


def read_list(name: str) -> list[str]:
    """The texts of a shipped list, or of a UTF-8 file with one text on each line.

    Raises:
        TextError: there is no such list or file, or it holds no text.
    """
    path = list_path(name) if name in LISTS else Path(name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise TextError(
            f"cannot read the list {name!r} ({error}): give a text file, or one of "
            f"{', '.join(LISTS)}"
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise TextError(f"the list {name!r} is empty: write one text on each line")
    return texts
