"""A stream for async code, and a stream read ahead: the work is done in one other thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from mars5.streaming.stream import Chunk, SpeechStream


def read_ahead(stream: SpeechStream) -> Iterator[Chunk]:
    """The chunks of `stream`; the next one is made while the reader has one. Closes the stream."""
    worker = ThreadPoolExecutor(1, "mars5-stream")
    try:
        coming = worker.submit(_following, stream)
        while (chunk := coming.result()) is not None:
            coming = worker.submit(_following, stream)
            yield chunk
    finally:
        stream.close()
        worker.shutdown(cancel_futures=True)


async def stream_async(
    start: Callable[[str | Iterable[str]], SpeechStream],
    text: str | Iterable[str] | AsyncIterable[str],
) -> AsyncIterator[Chunk]:
    """See `Mars5TTS.astream`; `start` gives the stream of a text."""
    loop = asyncio.get_running_loop()
    parts = _Parts(text, loop) if isinstance(text, AsyncIterable) else text
    worker = ThreadPoolExecutor(1, "mars5-stream")
    stream: SpeechStream | None = None
    try:
        stream = await loop.run_in_executor(worker, start, parts)
        coming = loop.run_in_executor(worker, _following, stream)
        while (chunk := await coming) is not None:
            coming = loop.run_in_executor(worker, _following, stream)
            yield chunk
    finally:
        if stream is not None:
            stream.close()
        if isinstance(parts, _Parts):
            parts.close()
        worker.shutdown(wait=False, cancel_futures=True)


def _following(stream: SpeechStream) -> Chunk | None:
    return next(stream, None)


class _Parts(Iterator[str]):
    """An asynchronous iterator of a loop, read from another thread."""

    def __init__(self, parts: AsyncIterable[str], loop: asyncio.AbstractEventLoop) -> None:
        self._parts, self._loop = aiter(parts), loop
        self._coming: Future[str] | None = None
        self._closed = False

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        self._coming = asyncio.run_coroutine_threadsafe(self._following(), self._loop)
        try:
            return self._coming.result()
        except (StopAsyncIteration, CancelledError):
            raise StopIteration from None

    async def _following(self) -> str:
        return await anext(self._parts)

    def close(self) -> None:
        self._closed = True
        if self._coming is not None:
            self._coming.cancel()
