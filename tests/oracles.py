"""Packages whose results ours must equal; the library does not need them."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def oracle(name: str) -> ModuleType:
    """The module, or the test is skipped: some need a torchaudio that fits this torch."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"{name} cannot be imported here: {error}")
