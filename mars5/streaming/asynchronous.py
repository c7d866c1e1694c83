"""A stream for async code, and a stream read ahead: the work is done in one other thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue

from mars5.streaming.stream import Chunk, SpeechStream

_LAST_STEP = 1.0  # seconds for a model at work to end its step; a wait for text may never end


def read_ahead(stream: SpeechStream) -> Iterator[Chunk]:
    """The chunks of `stream`; the next one is made while the reader has one. Closes the stream."""
    asked = threading.Semaphore(0)
    made: SimpleQueue[Chunk | BaseException | None] = SimpleQueue()  # holds one at most, see asked

    def work() -> None:
        try:
            while asked.acquire() and (chunk := _following(stream)) is not None:
                made.put(chunk)
            made.put(None)
        except BaseException as error:  # noqa: BLE001 - the reader raises it
            made.put(error)

    # A thread that waits for text cannot be told to stop. Python would wait at its end for that of
    # an executor, and Ctrl-C would do nothing; it does not wait for a daemon.
    worker = threading.Thread(target=work, name="mars5-stream", daemon=True)
    worker.start()
    try:
        asked.release()
        while (chunk := made.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            asked.release()
            yield chunk
    finally:
        stream.close()
        asked.release()  # so that a worker that has nothing to do finds the stream at its end
        worker.join(_LAST_STEP)


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
        except StopAsyncIteration:
            raise StopIteration from None
        except CancelledError:
            if self._closed:
                raise StopIteration from None
            raise  # who writes the text was cancelled: it is not at its end

    async def _following(self) -> str:
        return await anext(self._parts)

    def close(self) -> None:
        self._closed = True
        if self._coming is not None:
            self._coming.cancel()
