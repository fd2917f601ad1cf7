"""
asyncio's streams: an event loop under code that reads like the code of a thread.

Teaches: ``await`` marks each place where the loop may run another session.  So the straight line
is back, and between two ``await`` nothing else runs: few locks are needed.

Fails: a session is at least two tasks, with more objects than two callbacks need; and a call that
computes or blocks between two ``await`` delays everybody, though it looks harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from .blocking import CHUNK, CONNECT_TIMEOUT
from .listening import BACKLOG, Address, Hook


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the stream has ended; ``drain`` waits for a peer that reads slowly."""
    while data := await source.read(CHUNK):
        sink.write(data)
        await sink.drain()
    sink.write_eof()


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Serve until SIGQUIT, which cancels every session."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError), contextlib.closing(writer):
            if hook is not None:
                hook(writer.get_extra_info("peername")[0])
            connect = asyncio.open_connection(*upstream)
            server_reader, server_writer = await asyncio.wait_for(connect, CONNECT_TIMEOUT)
            with contextlib.closing(server_writer):
                await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))

    async def main() -> None:
        server = await asyncio.start_server(session, *address, backlog=BACKLOG)
        quits = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, quits.set)
        await quits.wait()
        server.close()

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
