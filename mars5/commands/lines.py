"""What the commands write: facts to standard output, all else to standard error."""

from __future__ import annotations

import sys


def print_fact(name: str, value: object) -> None:
    print(f"{name:<15} {value}")


def tell(message: str) -> None:
    print(f"mars5: {message}", file=sys.stderr)
