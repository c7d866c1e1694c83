"""The one exception tree: every error a caller can cause is a `Mars5Error`.

Messages name the file or field, what was found, the limit, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Mars5Error(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(Mars5Error, ValueError):
    """A setting is unknown, out of its range, or contradicts another one."""


class CheckpointError(Mars5Error, ValueError):
    """A checkpoint file is damaged, hostile, or does not fit the model it claims to be."""


class TokenizerError(Mars5Error, ValueError):
    """A tokenizer file is malformed, or ids and codes lie outside the vocabulary."""


class AudioInputError(Mars5Error, ValueError):
    """Reference audio cannot be read, or is not usable as a reference."""


class TextError(Mars5Error, ValueError):
    """Text to speak (or a transcript) is empty, too long, or not speakable."""


class VoiceError(Mars5Error, ValueError):
    """A voice file is damaged or was made with another codec or checkpoint."""


class StyleError(Mars5Error, ValueError):
    """A style bank cannot be read, or has nothing like what was asked for."""


class GenerationError(Mars5Error, RuntimeError):
    """Generation ran but gave nothing that can be turned into audio."""


class BatchError(Mars5Error, RuntimeError):
    """Some texts of a batch failed; those that did not are not lost.

    Attributes:
        speeches: a `Speech` for each text, None for those that failed.
        errors: the error of each that failed, by its place.
    """

    def __init__(self, speeches: Sequence[Any], errors: Mapping[int, Mars5Error]) -> None:
        self.speeches, self.errors = list(speeches), dict(errors)
        index, first = next(iter(sorted(self.errors.items())))
        super().__init__(
            f"{len(self.errors)} of {len(self.speeches)} texts failed, the first of them text "
            f"{index}: {first}; the speech of the others is in this error's `speeches`"
        )


class DeviceError(Mars5Error, RuntimeError):
    """A device was asked for that this machine or this build of torch does not have."""


class OutOfMemoryError(Mars5Error, MemoryError):
    """The memory of the device, or of this machine, did not suffice for this one request."""


class HubError(Mars5Error, RuntimeError):
    """A file could not be fetched, found offline, or did not have its pinned hash."""


class MissingExtraError(Mars5Error, ImportError):
    """An optional dependency is needed; the message holds the install line."""


class TrainError(Mars5Error, RuntimeError):
    """A step of the training recipe cannot run (missing teacher, corpus, or earlier step)."""
