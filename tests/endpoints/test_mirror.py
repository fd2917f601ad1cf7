"""The mirror of the server endpoint ``evproxy:``: a second server gets what the clients send."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from evproxy.errors import SettingsError
from tests.endpoints.test_server import client_of
from tests.support.endpoint_programs import Program, listening
from tests.support.peers import END, RESET, Listening
from tests.support.services import until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "endpoints.md"


@pytest.fixture
def second() -> Iterator[Listening]:
    """The server that gets the copies."""
    server = Listening.tcp(reactor)
    yield server
    server.close()


async def test_a_session_is_copied(second: Listening) -> None:
    """A second server gets the client's address and bytes; the client gets the program's answer."""
    keys = rf":mirror=pool=127.0.0.1\:{second.port},send_proxy_protocol=1"
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        await client.send(b"question")
        its = await program.client()
        assert await its.read(8) == b"question"
        assert its.transport.getPeer().port == client.socket.getsockname()[1]
        copy = await second.accept()
        here, there = client.socket.getsockname()[1], port.getHost().port
        expected = b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\nquestion" % (here, there)
        assert await copy.receive(len(expected)) == expected
        await copy.send(b"another")
        its.transport.write(b"answer")
        its.transport.loseConnection()
        assert await client.rest() == (b"answer", END)
        client.reset()
        await its.over()
        assert (await copy.rest())[1] == RESET


async def test_answers_are_compared(second: Listening, warnings_logged: list[str]) -> None:
    """The answer of the program is compared with that of the second server, byte by byte."""
    keys = rf":mirror=pool=127.0.0.1\:{second.port},answers=compare"
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        await client.send(b"question")
        client.end()
        its, copy = await program.client(), await second.accept()
        assert await copy.rest() == (b"question", END)
        await copy.send(b"another")
        copy.end()
        its.transport.write(b"answer")
        its.transport.loseConnection()
        assert await client.rest() == (b"answer", END)
        await until(reactor, lambda: bool(warnings_logged))
        assert "got another answer from" in warnings_logged[0]
        assert "at byte 2" in warnings_logged[0]
        await its.over()
        client.close()


async def test_a_program_does_without_the_second_server(warnings_logged: list[str]) -> None:
    """A server that cannot be connected to costs the copy, and nothing else."""
    gone = Listening.tcp(reactor)
    keys = rf":mirror=pool=127.0.0.1\:{gone.port},connect_attempts=1"
    gone.close()
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        await client.send(b"question")
        its = await program.client()
        assert await its.read(8) == b"question"
        await until(reactor, lambda: bool(warnings_logged))
        assert "was dropped (unreachable)" in warnings_logged[0]
        client.close()


async def test_no_session_is_copied(second: Listening) -> None:
    """With the fraction 0, the second server notices nothing."""
    keys = rf":mirror=pool=127.0.0.1\:{second.port},fraction=0"
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        await client.send(b"question")
        await (await program.client()).read(8)
        with pytest.raises(BlockingIOError):
            second.socket.accept()
        client.close()


async def test_servers_are_quoted_by_twisted(second: Listening, tmp_path: Path) -> None:
    """Twisted quotes the whole value; blanks separate its servers, which get copies in turn."""
    path = str(tmp_path / "second.sock")
    servers = f"unix:{path} tcp:127.0.0.1:{second.port}:timeout=3"
    keys = f":mirror={quoteStringArgument(f'pool={servers}, hash=peer')}:max_sessions=9"
    with closing(Listening.unix(reactor, path)) as other:
        async with listening(reactor, keys, Program()) as port:
            for server in (other, second):
                client = client_of(port)
                await client.send(b"question")
                copy = await server.accept()
                assert await copy.receive(8) == b"question"
                client.reset()
                await copy.rest()


def test_the_example_of_the_page() -> None:
    """The string in the documentation is right."""
    found = re.search(r"^evproxy:.*:mirror=.*$", PAGE.read_text(), re.MULTILINE)
    assert found is not None
    assert IStreamServerEndpoint.providedBy(serverFromString(reactor, found[0]))


@pytest.mark.parametrize(
    ("mirror", "problem"),
    [
        ("", "mirror.pool: expected at least one server, such as mirror=pool="),
        ("fraction=0.5", "mirror.pool: expected at least one server"),
        (r"10.0.0.1\:80", 'mirror: expected KEY=VALUE, got "10.0.0.1:80"'),
        (r"pool=10.0.0.1\:80,frction=1", 'mirror: unknown key "frction", did you mean "fraction"?'),
        (r"pool=10.0.0.1\:80,fraction=2", "mirror.fraction: expected a number from 0 to 1"),
        (r"pool=10.0.0.1\:80,answers=comprae", 'did you mean "compare"?'),
        (r"pool=10.0.0.1\:80 x", "mirror.pool[1]: expected HOST:PORT"),
        (r"pool=10.0.0.1\:80 10.0.0.1\:80", "mirror.pool: 10.0.0.1:80 is listed twice"),
        (r"pool=nothing\:x", "mirror.pool: 'nothing:x' is not an upstream server"),
        (r"pool=127.0.0.1\:8080", 'mirror.pool: "127.0.0.1:8080" leads back to the listener'),
        (r"pool=10.0.0.1\:80,connect_timeout=0", "mirror.connect_timeout: expected a number of"),
    ],
)
def test_a_wrong_mirror_is_one_clear_error(mirror: str, problem: str) -> None:
    """The string is refused before there are clients, in one line that names the key."""
    with pytest.raises(SettingsError) as caught:
        serverFromString(reactor, rf"evproxy:tcp\:8080:mirror={mirror}")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("evproxy: ")
    assert "\n" not in str(caught.value)
