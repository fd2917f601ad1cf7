"""A coroutine of asyncio that waits: `until` does not block its loop."""

import asyncio


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def talk(evproxy):
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = evproxy("127.0.0.1", server.sockets[0].getsockname()[1])
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    with proxy.stall(stream="downstream"):
        writer.write(b"question")
        (session,) = await proxy.until_sessions(1)
        await proxy.until(lambda: session.sent == b"question")
        assert session.received == b""
    assert await reader.readexactly(8) == b"question"
    writer.close()
    await proxy.until(lambda: session.over)
    server.close()


def test_it_waits(evproxy):
    asyncio.run(talk(evproxy))
