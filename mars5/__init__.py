"""MARS5: text-to-speech that clones a voice from 2-12 seconds of reference audio."""

__version__ = "0.1.0"
