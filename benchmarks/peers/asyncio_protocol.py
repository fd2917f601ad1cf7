"""A TCP proxy on asyncio's protocols and uvloop: no task, no stream, one buffer for all sessions.

Usage: asyncio_protocol.py LISTEN:UPSTREAM ...
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

CHUNK = 262144  # with 65536 bulk took up to twice the CPU time, and requests the same
BUFFER = memoryview(bytearray(CHUNK))


class End(asyncio.BufferedProtocol):
    """One of the two connections of a session: what it reads, it writes to the other."""

    transport: asyncio.Transport
    other: End | None = None
    at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop reads to; it is used at once, so all sessions can share it."""
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Pass it on, as a copy: what the other end does not take at once waits there."""
        data = bytes(BUFFER[:nbytes])
        if self.other is None:
            self.early(data)
        else:
            self.other.transport.write(data)

    def early(self, data: bytes) -> None:
        """There is no other end yet."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Too much waits here: the other end reads no more."""
        assert self.other is not None
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Little waits here: the other end reads again."""
        assert self.other is not None
        if not self.other.at_end and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        """Pass the end of the stream on; the session ends with the second one."""
        self.at_end = True
        if self.other is None:
            return True
        if self.other.at_end:
            self.transport.close()
            self.other.transport.close()
        elif not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The other connection ends too, once it has sent what waits there."""
        if self.other is not None:
            self.other.transport.close()
            self.other = None


class Downstream(End):
    """The client's connection, which waits until the upstream's is up.

    uvloop starts to read after ``connection_made`` whatever that asked for, so what comes
    before the upstream is there has to be kept.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.kept: list[bytes] = []
        self.connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the upstream."""
        super().connection_made(transport)
        self.connecting = asyncio.get_running_loop().create_task(self.connect())

    def early(self, data: bytes) -> None:
        """Keep it, and read no more for now."""
        self.kept.append(data)
        self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Connect no longer, if that is in progress."""
        super().connection_lost(exc)
        if self.connecting is not None:
            self.connecting.cancel()

    async def connect(self) -> None:
        """Join this connection with a new one to the upstream, or close it."""
        other = End()
        other.other = self
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: other, "127.0.0.1", self.upstream)
        except OSError:
            self.transport.abort()
            return
        self.connecting = None
        self.other = other
        if self.kept:
            other.transport.writelines(self.kept)
            self.kept.clear()
        if self.at_end:
            other.transport.write_eof()
        else:
            self.transport.resume_reading()


async def serve(listen: int, upstream: int) -> asyncio.Server:
    """Listen on one loopback port and proxy to another."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Downstream(upstream), "127.0.0.1", listen, backlog=4096)


async def main() -> None:
    """Serve every pair of ports given as an argument until the process is ended."""
    servers = [await serve(*map(int, pair.split(":"))) for pair in sys.argv[1:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


uvloop.run(main())
