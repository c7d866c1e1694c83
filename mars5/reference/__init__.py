"""The reference doctor: what a recording is worth as a reference, and its best part."""

from mars5.reference.excerpt import Excerpt, best_excerpt
from mars5.reference.prepare import PreparedReference, prepare_reference
from mars5.reference.report import ReferenceReport, examine

__all__ = [
    "Excerpt",
    "PreparedReference",
    "ReferenceReport",
    "best_excerpt",
    "examine",
    "prepare_reference",
]
