"""Streams of bytes: a serial console or a virtio-serial channel of one VM, to read and to write."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import List, NamedTuple, Optional, Type, Union

from . import _errors, _native
from ._loops import loop
from ._streams import _AsyncIterator, _Iterator, _Stream

#: As of the verbs: what is written may be secret.
__tracebackhide__ = True

#: What is looked for: a regular expression. One that is not compiled is so with ``re.DOTALL``; text is UTF-8.
Pattern = Union[bytes, str, "re.Pattern[bytes]"]

#: The most bytes that are kept while a pattern has not come.
_MOST = 1 << 20

#: Of what was searched already so many bytes are searched again with what comes next. A match has no more of them.
_WINDOW = 64 << 10

#: The most bytes that an exception shows.
_SHOWN = 200


class Expected(NamedTuple):
    """What :meth:`ByteStream.expect` has read."""

    #: What came before the match, the last MiB of it at most.
    before: bytes
    #: The match, with its groups.
    match: re.Match[bytes]


class _Bytes(_Stream[bytes]):
    """What both kinds of streams have."""

    def __init__(self, pipe: _native.Pipe, fleet: object) -> None:
        super().__init__(pipe, fleet)
        self._pipe = pipe

    def _read(self, portion: bytes) -> List[bytes]:
        return [portion]

    def _put_back(self, rest: bytes) -> None:
        if rest and not self._is_closed:
            self._ready.appendleft(rest)

    def _missed(self, search: _Search, seconds: Optional[float]) -> _errors.AtpError:
        return _errors.stream_closed() if self._is_closed else search.missed(seconds)


class ByteStream(_Bytes, _Iterator[bytes]):
    """A serial console or a virtio-serial channel of one VM, open to read and to write: see :meth:`Fleet.attach` and
    :meth:`Fleet.channel`. It is a context manager, and an iterator of what the guest writes.

    It ends when the VM stops, when another client takes it, and when its fleet is closed. One thread may read while others write. What
    comes while nobody reads is kept, up to 4 MiB: with more the stream is lost (``output-too-large``).
    """

    def write(self, data: bytes, timeout: Optional[float] = 30.0) -> None:
        """Sends bytes to the guest. Returns when the host's daemon, or the service, has taken them.

        :param timeout: For how many seconds; None waits without an end. A guest that reads nothing takes nothing after some time.
        :raises OutcomeError: They were not all taken (the effect ``unknown``), or the stream has ended.
        """
        if self._is_closed:
            raise _errors.stream_closed()
        self._pipe.write(data, timeout)

    def read(self, timeout: Optional[float] = None) -> bytes:
        """Takes what has come from the guest, and waits if nothing has. It is empty at the end.

        :param timeout: For how many seconds; None waits without an end.
        :raises OutcomeError: Nothing came (``condition-not-met``, and the stream is as good as before), or the stream was lost.
        """
        portion = self._portion(_until(timeout))
        if portion is None:
            raise _errors.not_read("nothing came", timeout, b"")
        return portion

    def expect(self, pattern: Pattern, timeout: Optional[float] = 30.0) -> Expected:
        """Reads until a regular expression matches, and no further: what comes after the match is read next.

        :param pattern: Bytes or text. ``.`` is any byte, ``$`` the end of what has come by then.
        :param timeout: For how many seconds; None waits without an end.
        :raises OutcomeError: It did not come in time, or before the end (``condition-not-met``; ``retryable`` if in time), or the
            stream was lost. What was read is still there for the next read, the last MiB at most.

        >>> with fleet.attach("h1/vm1") as console:
        ...     before, match = console.expect(r"(\\w+) login: ", timeout=60)
        >>> match[1], b"Debian" in before
        (b'vm1', True)
        """
        search, until = _Search(pattern), _until(timeout)
        try:
            while True:
                portion = self._portion(until)
                found = search.look(portion) if portion else None
                if found is not None:
                    return found
                if not portion:
                    raise self._missed(search, timeout if portion is None else None)
        finally:
            self._put_back(search.rest)

    def close(self) -> None:
        """Closes it when the guest has taken what was written. It does not take longer than about ten seconds.

        :raises OutcomeError: The guest has not taken all of it. It is closed all the same.
        """
        if self._is_closed:
            return
        try:
            self._pipe.finish()
        finally:
            self._end()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, Exception):
            # What went wrong first is raised.
            with suppress(_errors.AtpError):
                self.close()
        else:
            # An interrupt does not wait for a guest.
            self._end()

    def _portion(self, until: Optional[float]) -> Optional[bytes]:
        """The next bytes; none at the end, and None if there are none by then."""
        with suppress(IndexError):
            return self._ready.popleft()
        if self._has_ended:
            return b""
        portion = self._pipe.next(_left(until))
        if portion == b"":
            self._has_ended = True
        return portion


class AsyncByteStream(_Bytes, _AsyncIterator[bytes]):
    """A :class:`ByteStream` of an :class:`AsyncFleet`. What it does is awaited, and it is an asynchronous context manager and iterator.

    A read that is cancelled takes no bytes with it: the next one gets them. A write that is cancelled may be sent all the same.
    """

    async def write(self, data: bytes, timeout: Optional[float] = 30.0) -> None:
        """As :meth:`ByteStream.write`."""
        if self._is_closed:
            raise _errors.stream_closed()
        await loop().answer(partial(self._pipe.write_into, data, timeout))

    async def read(self, timeout: Optional[float] = None) -> bytes:
        """As :meth:`ByteStream.read`."""
        portion = await self._portion(_until(timeout))
        if portion is None:
            raise _errors.not_read("nothing came", timeout, b"")
        return portion

    async def expect(self, pattern: Pattern, timeout: Optional[float] = 30.0) -> Expected:
        """As :meth:`ByteStream.expect`."""
        search, until = _Search(pattern), _until(timeout)
        try:
            while True:
                portion = await self._portion(until)
                found = search.look(portion) if portion else None
                if found is not None:
                    return found
                if not portion:
                    raise self._missed(search, timeout if portion is None else None)
        finally:
            self._put_back(search.rest)

    async def __anext__(self) -> bytes:
        portion = await self._portion(None)
        if not portion:
            raise StopAsyncIteration
        return portion

    async def aclose(self) -> None:
        """As :meth:`ByteStream.close`."""
        if self._is_closed:
            return
        try:
            # If its fleet was closed it is closed too.
            with suppress(_errors.ClosedError):
                await loop().answer(self._pipe.finish_into)
        finally:
            await super().aclose()

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is None:
            await self.aclose()
        elif isinstance(error, Exception):
            with suppress(_errors.AtpError):
                await self.aclose()
        else:
            await super().aclose()

    async def _portion(self, until: Optional[float]) -> Optional[bytes]:
        while not self._ready and not self._has_ended:
            left = _left(until)
            try:
                await self._wait(left)
            except _errors.ClosedError:
                # It ends with its fleet.
                self._has_ended = True
            if left == 0:
                break
        if self._ready:
            return self._ready.popleft()
        return b"" if self._has_ended else None


class _Search:
    """A pattern that is looked for in bytes as they come."""

    def __init__(self, pattern: Pattern) -> None:
        if isinstance(pattern, str):
            pattern = pattern.encode()
        self._pattern = re.compile(pattern, re.DOTALL) if isinstance(pattern, bytes) else pattern
        #: What has come and is not part of a match, or comes after it.
        self.rest = b""

    def look(self, portion: bytes) -> Optional[Expected]:
        """Looks for it in what has come, and in this."""
        seen = len(self.rest)
        self.rest += portion
        match = self._pattern.search(self.rest, max(seen - _WINDOW, 0))
        if match is None:
            self.rest = self.rest[-_MOST:]
            return None
        before, self.rest = self.rest[: match.start()], self.rest[match.end() :]
        return Expected(before[-_MOST:], match)

    def missed(self, seconds: Optional[float]) -> _errors.OutcomeError:
        """The exception for a pattern that did not come in so many seconds, or before the end."""
        return _errors.not_read(f"{self._pattern.pattern!r} did not come", seconds, self.rest[-_SHOWN:])


def _until(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else monotonic() + timeout


def _left(until: Optional[float]) -> Optional[float]:
    return None if until is None else max(until - monotonic(), 0.0)
