"""MARS5: text-to-speech that clones a voice from 2-12 seconds of reference audio."""

from mars5.config import InferenceConfig
from mars5.errors import Mars5Error
from mars5.tts import Mars5TTS, Speech
from mars5.voice import Voice

__version__ = "0.1.0"
__all__ = ["InferenceConfig", "Mars5Error", "Mars5TTS", "Speech", "Voice", "__version__"]
