"""A relay in front of a server: lets a test cut every connection and refuse new ones, then mend it."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit


class Relay:
    """Forwards a port of its own to the server that `url` names; `url` of the relay names the relay instead."""

    def __init__(self, target: str) -> None:
        self._parts = urlsplit(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @classmethod
    async def start(cls, target: str) -> "Relay":
        """A relay that forwards."""
        relay = cls(target)
        await relay.mend()
        return relay

    @property
    def url(self) -> str:
        """The target's address with the relay's port in it."""
        login = self._parts.netloc.rpartition("@")[0]
        host = f"127.0.0.1:{self._port}"
        return urlunsplit(self._parts._replace(netloc=f"{login}@{host}" if login else host))

    async def cut(self) -> None:
        """End every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def mend(self) -> None:
        """Listen again, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End it."""
        await self.cut()

    def say_to_clients(self, words: bytes) -> None:
        """Put words into the server's mouth."""
        for writer in self._clients:
            writer.write(words)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._clients.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        await asyncio.gather(self._forward(reader, far_writer), self._forward(far_reader, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        self._clients.discard(writer)
        writer.transport.abort()
