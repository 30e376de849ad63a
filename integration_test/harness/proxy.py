"""A TCP proxy between one worker and the database: a network that can swallow everything, or be cut."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 65536


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = (client, server)
        self.silent = False
        self.kind = ""
        """Of the worker's connection: the second word of its application_name."""

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class _Muffler:
    """Lets a server's messages through, but for notifications."""

    def __init__(self) -> None:
        self._rest = b""

    def let_through(self, data: bytes) -> bytes:
        self._rest, passed = self._rest + data, b""
        while len(self._rest) >= _HEADER and len(self._rest) > (size := int.from_bytes(self._rest[1:_HEADER])):
            message, self._rest = self._rest[: size + 1], self._rest[size + 1 :]
            passed += b"" if message.startswith(b"A") else message
        return passed


_HEADER = 5
"""Bytes: a message's type, and how long the rest of it is, these four included."""


class Proxy:
    """An async context manager that listens on a free port of 127.0.0.1.

    `swallow` stops reading: nothing arrives, nothing ends, as if the host had vanished. With a kind it swallows only
    the worker's connections of that kind. `cut` resets all connections. `hold` lets new connections wait.
    """

    def __init__(self, url: str, *, muffled: bool = False) -> None:
        """Lead to the server of this URL. `muffled`: without its notifications, as some poolers do."""
        self._target = urlsplit(url)
        self._muffled = muffled
        self._links: set[_Link] = set()
        self._swallowed: set[str] = set()
        self._passes_bytes = CHUNK
        self._flows = asyncio.Event()
        self._flows.set()
        self._accepts = asyncio.Event()
        self._accepts.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, database: str | None = None) -> str:
        """Return the URL of a database through the proxy."""
        path = self._target.path if database is None else f"/{database}"
        user = self._target.username or "postgres"
        # Without SSL's first word the first packet is the start-up message, which tells the kind of the connection.
        return urlunsplit(("postgresql", f"{user}@127.0.0.1:{self.port}", path, "sslmode=disable", ""))

    def swallow(self, kind: str = "") -> None:
        """Deliver nothing from now on; with a kind: of those connections only."""
        self._swallowed.add(kind)
        self._flows.clear()

    def silence(self, kind: str) -> None:
        """Deliver nothing more on the open connections of a kind; new ones work: a firewall has lost its memory."""
        for link in self._links:
            link.silent = link.silent or link.kind == kind

    def narrow(self, passes_bytes: int) -> None:
        """Deliver nothing that a client sends at once and is larger, nor what comes after it on that connection.

        As a way does on which packets are lost that are too large for it, without a word.
        """
        self._passes_bytes = passes_bytes

    def flow(self) -> None:
        """Deliver again, what was swallowed included."""
        self._swallowed.clear()
        self._flows.set()

    def lead_to(self, url: str) -> None:
        """Lead new connections to this server; those that are open stay where they are, as when an address moves."""
        self._target = urlsplit(url)

    def hold(self) -> None:
        """Let new connections wait."""
        self._accepts.clear()

    def accept(self) -> None:
        """Let the waiting connections through."""
        self._accepts.set()

    def cut(self) -> None:
        """Reset every connection."""
        for link in [*self._links]:
            link.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._accepts.wait()
            await self._carry(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "" in self._swallowed:
            await self._flows.wait()
        host, port = self._target.hostname or "127.0.0.1", self._target.port or 5432
        from_server, to_server = await asyncio.open_connection(host, port)
        link = _Link(writer, to_server)
        with self._linked(link):
            muffler = _Muffler() if self._muffled else None
            await asyncio.gather(self._pump(link, reader, to_server), self._pump(link, from_server, writer, muffler))

    @contextlib.contextmanager
    def _linked(self, link: _Link) -> Iterator[None]:
        self._links.add(link)
        try:
            yield
        finally:
            self._links.discard(link)
            link.cut()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, muffler: _Muffler | None = None
    ) -> None:
        try:
            while data := await reader.read(CHUNK):
                link.kind = link.kind or _kind(data)
                link.silent = link.silent or (writer is link.writers[1] and len(data) > self._passes_bytes)
                while link.silent or self._swallowed & {"", link.kind}:
                    await (asyncio.Event() if link.silent else self._flows).wait()
                writer.write(muffler.let_through(data) if muffler else data)
                await writer.drain()
        except OSError:
            pass
        finally:
            link.cut()


def _kind(startup: bytes) -> str:
    _, found, name = startup.partition(b"application_name\0reactive_orch:")
    return name.partition(b":")[0].decode() if found else "?"
