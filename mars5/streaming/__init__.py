"""Speech as it is made: chunks of audio while the rest is still being generated."""

from __future__ import annotations

from mars5.streaming.asynchronous import stream_async
from mars5.streaming.stream import Chunk, SpeechStream, open_stream

__all__ = ["Chunk", "SpeechStream", "open_stream", "stream_async"]
