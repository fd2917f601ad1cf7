"""The start of a PostgreSQL connection, in any fragmentation."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread

from evproxy.errors import PostgresError
from evproxy.wire.postgres import (
    LONGEST_KEY,
    SIZE_LIMIT,
    SSL_REQUEST,
    BackendKey,
    CancelRequest,
    DirectTls,
    GssRequest,
    KeyWatcher,
    SslRequest,
    StartReader,
    Startup,
    error_response,
)
from tests.support.peers import Listening, Peer, connect, turn
from tests.support.real_servers import RealServers, free_port
from tests.support.server_kinds import postgresql
from tests.wire.pieces import Feed, cut_places, in_every_way, outcome, pieces


def new() -> Feed:
    return StartReader().feed


def read(data: bytes) -> object:
    return in_every_way(new, data, PostgresError)


def start(code: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A first message; `length` is what it says, if that is wrong."""
    length = 8 + len(body) if length is None else length
    return length.to_bytes(4) + code.to_bytes(4) + body


def startup(*texts: bytes, minor: int = 0) -> bytes:
    return start(0x0003_0000 + minor, b"".join(text + b"\0" for text in texts) + b"\0")


SSL, GSS, CANCEL = 80877103, 80877104, 80877102

LIBPQ_18 = [
    (
        # psycopg 3.3 with libpq 18.0.6.
        b'\0\0\0"\0\x03\0\0user\0alice\0database\0shop\0\0',
        Startup(0, {"user": "alice", "database": "shop"}),
    ),
    (
        # The same with max_protocol_version=3.2.
        b"\0\0\x005\0\x03\0\x02user\0alice\0database\0shop\0application_name\0x\0\0",
        Startup(2, {"user": "alice", "database": "shop", "application_name": "x"}),
    ),
    (b"\0\0\0\x08\x04\xd2\x16/", SslRequest()),
    (bytes.fromhex("0000001004d2162e0000109201020304"), CancelRequest(4242, b"\1\2\3\4")),
    (
        bytes.fromhex("0000002c04d2162e00001092") + bytes(range(32)),
        CancelRequest(4242, bytes(range(32))),
    ),
    (bytes.fromhex("0000010c04d2162e00001092") + b"k" * 256, CancelRequest(4242, b"k" * 256)),
    (b"\x16\x03\x01\x06\x07\x01\x00\x06\x03\x03\x03", DirectTls()),
]
"""What a real client sent."""


@pytest.mark.parametrize(("data", "expected"), LIBPQ_18)
def test_libpq(data: bytes, expected: object) -> None:
    """What libpq 18 sends is read."""
    assert read(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (start(GSS), GssRequest()),
        (SSL_REQUEST, SslRequest()),
        (start(CANCEL, bytes(4) + b"k"), CancelRequest(0, b"k")),
        (start(CANCEL, b"\xff" * 8), CancelRequest(2**32 - 1, b"\xff" * 4)),
        (startup(), Startup(0, {})),
        (startup(b"user", b""), Startup(0, {"user": ""})),
        (startup(b"user", "bücher".encode()), Startup(0, {"user": "bücher"})),
        (startup(b"user", b"b\xfccher"), Startup(0, {"user": "b\udcfccher"})),
        (startup(b"\xfc", b"a"), Startup(0, {"\udcfc": "a"})),
        # libpq 19 asks for a minor version that nobody has, so that servers learn to negotiate.
        (
            startup(b"user", b"a", b"_pq_.x", b"", minor=9999),
            Startup(9999, {"user": "a", "_pq_.x": ""}),
        ),
        (startup(b"DateStyle", b"ISO", b"DateStyle", b"SQL"), Startup(0, {"DateStyle": "SQL"})),
    ],
)
def test_sound(data: bytes, expected: object) -> None:
    """Each message of the specification is read."""
    assert read(data) == expected


@pytest.mark.parametrize(
    ("texts", "user", "database"),
    [
        ((b"user", b"alice"), "alice", "alice"),
        ((b"user", b"alice", b"database", b""), "alice", "alice"),
        ((b"database", b"shop", b"user", b"alice"), "alice", "shop"),
        ((b"User", b"alice"), "", ""),
    ],
)
def test_user_and_database(texts: tuple[bytes, ...], user: str, database: str) -> None:
    """The database is named like the user if it is not named."""
    found: Any = read(startup(*texts))
    assert (found.user, found.database) == (user, database)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\n", "the first byte is 0x47: this is not PostgreSQL"),
        (b"\x15\x03\x01", "the first byte is 0x15: this is not PostgreSQL"),
        (b"\x80", "the first byte is 0x80: this is not PostgreSQL"),
        (b"\0\0\0\0", "the first message has a length of 0"),
        (b"\0\0\0\7", "the first message has a length of 7"),
        (b"\0\0\x27\x15", "the first message has a length of 10005"),
        (b"\0\xff\xff\xff", "the first message has a length of 16777215"),
        (start(SSL, length=9), "the first message has a length of 9"),
        (start(GSS, length=12), "the first message has a length of 12"),
        (start(CANCEL, length=12), "the first message has a length of 12"),
        (start(CANCEL, length=13 + LONGEST_KEY), "the first message has a length of 269"),
        (start(0x0002_0000, length=296), "protocol 2.0 is not PostgreSQL 3"),
        (start(0x0004_0001, length=9), "protocol 4.1 is not PostgreSQL 3"),
        (start(SSL + 2), "protocol 1234.5681 is not PostgreSQL 3"),
        *(
            (start(0x0003_0000, body), "the parameters of the start-up message are malformed")
            for body in (
                b"",
                b"\0\0",
                b"user\0alice\0",
                b"user\0\0",
                b"user\0alice",
                b"user\0alice\0\0\0",
                b"\0alice\0\0",
                b"user\0alice\0\0x\0\0",
            )
        ),
        (startup(b"user", b"a", b"user", b"a"), "the start-up message has two values for user"),
        (
            startup(b"database", b"a", b"user", b"a", b"database", b"b"),
            "the start-up message has two values for database",
        ),
    ],
)
def test_malformed(data: bytes, fault: str) -> None:
    """What PostgreSQL refuses, or may understand otherwise, is the one error."""
    assert read(data) == f"error: {fault}"


def test_the_limit() -> None:
    """A message may be as long as PostgreSQL takes it."""
    value = b"x" * (SIZE_LIMIT - len(startup(b"user", b"")))
    found: Any = read(startup(b"user", value))
    assert found.user == value.decode()
    assert read((SIZE_LIMIT + 1).to_bytes(4)) == "error: the first message has a length of 10005"


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (SSL_REQUEST, 8),
        (start(CANCEL, bytes(4) + b"k" * 32), 44),
        (startup(b"user", b"alice"), 20),
        (b"\x16\x03\x01", 0),
    ],
)
def test_what_follows_is_known(data: bytes, size: int) -> None:
    """The size of the message tells what was smuggled behind it."""
    reader = StartReader()
    assert reader.feed(data + b"smuggled") is not None
    assert reader.size == size


def test_keys_are_secret() -> None:
    """A log of these values does not let others cancel."""
    assert "k" * 4 not in repr(CancelRequest(1, b"k" * 32))
    assert "k" * 4 not in repr(BackendKey(1, b"k" * 32))


CODES = st.sampled_from([SSL, GSS, CANCEL, 0x0003_0000, 0x0003_0002, 0x0002_0000])
TEXTS = st.lists(st.sampled_from([b"user", b"database", b"a", b""]) | st.binary(max_size=4))
LIKELY = st.builds(start, CODES, st.binary(max_size=20)) | TEXTS.map(lambda each: startup(*each))


@given(st.one_of(st.binary(), LIKELY), cut_places(60))
def test_any_input(data: bytes, cuts: list[int]) -> None:
    """Any input has an answer or the one error, and how it is cut changes nothing."""
    found = read(data)
    assert outcome(new(), pieces(data, cuts), PostgresError) == found


# The key in the server's answers.


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


AUTHENTICATION_OK = message(b"R", bytes(4))
PARAMETER = message(b"S", b"server_version\x0018.0\0")
KEY = message(b"K", (4242).to_bytes(4) + b"\1\2\3\4")
READY = message(b"Z", b"I")


def watched(data: bytes) -> tuple[BackendKey | None, bool]:
    """What a watcher finds in `data` and whether it is over: whole, and byte by byte."""
    found = []
    for parts in ([data], pieces(data, range(len(data)))):
        watcher = KeyWatcher()
        keys = [key for part in parts if (key := watcher.feed(part)) is not None]
        assert len(keys) <= 1
        found.append((keys[0] if keys else None, watcher.over))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("key", [b"\1\2\3\4", bytes(32), b"k" * LONGEST_KEY])
@pytest.mark.parametrize(
    "before",
    [
        b"",
        AUTHENTICATION_OK,
        message(b"R", (10).to_bytes(4) + b"SCRAM-SHA-256\0\0") + AUTHENTICATION_OK + 20 * PARAMETER,
        message(b"v", bytes(8)) + AUTHENTICATION_OK + message(b"N", b"SNOTICE\0\0"),
        message(b"S", bytes(100_000)),
        message(b"N"),
    ],
)
def test_key(before: bytes, key: bytes) -> None:
    """The key is found behind whatever a server says before, and nothing after it counts."""
    data = before + message(b"K", (4242).to_bytes(4) + key)
    assert watched(data) == (BackendKey(4242, key), True)
    assert watched(data + READY + KEY) == (BackendKey(4242, key), True)
    assert watched(data[:-1]) == (None, False)


@pytest.mark.parametrize(
    "data",
    [
        AUTHENTICATION_OK + READY + KEY,
        message(b"E", b"SFATAL\0\0") + KEY,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"S\0\0\0\3",
        b"S\0\0\0\3" + KEY,
        message(b"K", bytes(7)),
        message(b"K", bytes(5 + LONGEST_KEY)),
        message(b"D", b"") + KEY,
        bytes(5),
    ],
)
def test_no_key(data: bytes) -> None:
    """The end of the start-up, an error, and what is no start-up end the search."""
    assert watched(data) == (None, True)


def test_long_messages_are_not_kept() -> None:
    """A message that is announced with 4 GiB is counted, not held."""
    watcher = KeyWatcher()
    assert watcher.feed(b"S\xff\xff\xff\xff") is None
    for _ in range(100):
        assert watcher.feed(bytes(65536)) is None
    assert not watcher.over


@given(
    st.lists(
        st.sampled_from([AUTHENTICATION_OK, PARAMETER, KEY, READY, message(b"E")])
        | st.binary(max_size=8),
        max_size=6,
    ).map(b"".join)
)
def test_any_answer(data: bytes) -> None:
    """Whatever a server sends, the watcher finds the same however it is cut."""
    watched(data)


# Real clients and servers.


def test_error_response() -> None:
    """The fields of an error, in the order in which PostgreSQL sends them."""
    assert error_response("no route", "08004") == (
        b"E\0\0\0\x24SFATAL\0VFATAL\0C08004\0Mno route\0\0"
    )
    assert b"Ma\\x00b\\n\0\0" in error_response("a\0b\n")


@pytest.mark.peers("psql")
async def test_psql(reactor: Any) -> None:
    """psql's bytes are read, and it shows the error that a refused client gets."""
    listening = Listening.tcp(reactor)
    command = ["psql", "-w", f"host=127.0.0.1 port={listening.port} user=alice dbname=shop"]
    environment = {**os.environ, "LC_ALL": "C", "PGAPPNAME": "test", "PGCLIENTENCODING": "UTF8"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = deferToThread(run)
    client = await listening.accept()
    for expected in (SslRequest(), Startup):
        reader = StartReader()
        while (found := reader.feed(await client.some())) is None:
            pass
        if found == expected:
            await client.send(b"N")
    assert isinstance(found, Startup)
    assert (found.user, found.database) == ("alice", "shop")
    assert found.parameters["application_name"] == "test"
    await client.send(error_response("no pool takes the user alice"))
    client.end()
    result = await done
    client.close()
    listening.close()
    assert result.stderr.endswith("FATAL:  no pool takes the user alice\n")
    assert result.returncode == 2


@pytest.fixture
def servers() -> Iterator[RealServers]:
    made = RealServers()
    yield made
    made.end()


async def begun(reactor: Any, port: int) -> tuple[Peer, BackendKey]:
    """A session of the server at `port`, which may still be starting, and its key."""
    while True:
        client = connect(reactor, ("127.0.0.1", port))
        await client.send(startup(b"user", b"postgres"))
        watcher = KeyWatcher()
        while not watcher.over:
            if (key := watcher.feed(await client.receive(1))) is not None:
                return client, key
        client.close()
        await turn(reactor)


@pytest.mark.peers("postgres", "initdb")
async def test_key_of_a_real_server(reactor: Any, servers: RealServers) -> None:
    """The key that a server sends is that of the process which serves the client."""
    port = free_port()
    await postgresql(servers, port).started(reactor, port)
    client, key = await begun(reactor, port)
    await client.send(message(b"Q", b"select pg_backend_pid()\0"))
    received = b""
    while b"SELECT 1\0" not in received:
        received += await client.some()
    client.close()
    assert str(key.process_id).encode() in received
    assert len(key.key) == 4
