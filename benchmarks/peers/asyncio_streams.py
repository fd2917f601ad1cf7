"""A TCP proxy on asyncio's streams: two tasks a session, each copying one way.

Usage: asyncio_streams.py asyncio|uvloop LISTEN:UPSTREAM ...
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK = 65536


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of the stream, and pass that end on."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def serve(listen: int, upstream: int) -> asyncio.Server:
    """Listen on one loopback port and proxy to another."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_writer = None
        with contextlib.suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", upstream)
            await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))
        for end in (writer, other_writer):
            if end is not None:
                end.close()

    return await asyncio.start_server(session, "127.0.0.1", listen, backlog=4096)


async def main() -> None:
    """Serve every pair of ports given as an argument until the process is ended."""
    servers = [await serve(*map(int, pair.split(":"))) for pair in sys.argv[2:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
