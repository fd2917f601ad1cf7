"""What checks say, and what they take for a good answer, without any connection."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.errors import SettingsError
from evproxy.settings import HealthCheck
from evproxy.upstream.address import host_header, host_of, with_port
from evproxy.upstream.probes.dialogue import Dialogue, Exchange, Outcome
from evproxy.upstream.probes.scripts import (
    POSTGRESQL,
    POSTGRESQL_STARTUP,
    POSTGRESQL_TERMINATE,
    REDIS,
    SMTP,
    send_expect,
    unescape,
)

Script = tuple[Exchange, ...]


def spelled(send: str = "", expect: str = "", pattern: str = "") -> Script:
    return send_expect(
        HealthCheck(kind="send-expect", send=send, expect=expect, expect_pattern=pattern)
    )


def postgresql_error(code: bytes, message: bytes) -> bytes:
    fields = b"SFATAL\0C" + code + b"\0M" + message + b"\0\0"
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
AUTHENTICATION_SASL = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
SMTP_VISIT = b"220-mx.example.org\r\n220 ready\r\n250-mx\r\n250-SIZE\r\n250 HELP\r\n221 bye\r\n"

GOOD: list[tuple[Script, bytes]] = [
    (REDIS, b"+PONG\r\n"),
    (REDIS, b"+PONG\n"),
    (SMTP, SMTP_VISIT),
    (SMTP, b"220\r\n250\r\n221 bye\r\n"),
    (POSTGRESQL, AUTHENTICATION_OK),
    (POSTGRESQL, AUTHENTICATION_SASL),
    (POSTGRESQL, postgresql_error(b"28000", b"no pg_hba.conf entry")),
    (POSTGRESQL, postgresql_error(b"3D000", b"no such database")),
    (spelled(expect="ready"), b"server ready"),
    (spelled(expect=r"\x00\r\n"), b"a\0\r\n"),
    (spelled(pattern=r"load=[0-5]\d?\b\D"), b"up load=42\n"),
]

BAD: list[tuple[Script, bytes, str]] = [
    (REDIS, b"-NOAUTH x\r\n", "expected b'+PONG', got b'-NOAUTH x\\r\\n'"),
    (SMTP, b"554 no service\r\n", "expected reply 220, got b'554 no service'"),
    (SMTP, b"SSH-2.0-x\r\n", "expected reply 220, got b'SSH-2.0-x'"),
    (SMTP, b"220 hi\r\n502 what\r\n", "expected reply 250, got b'502 what'"),
    (
        POSTGRESQL,
        postgresql_error(b"57P03", b"the database system is starting up"),
        "PostgreSQL error 57P03: the database system is starting up",
    ),
    (POSTGRESQL, b"HTTP/1.1 400", "expected an authentication request, got b'H"),
    (
        POSTGRESQL,
        b"R\0\0\0\x01",
        "expected an authentication request, got b'R\\x00\\x00\\x00\\x01'",
    ),
]


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def played(script: Script, pieces: list[bytes]) -> tuple[bytes, Outcome | None]:
    dialogue = Dialogue(script)
    said = dialogue.begin()
    for piece in pieces:
        said += dialogue.receive(piece)
    return said, dialogue.outcome


@pytest.mark.parametrize(("script", "answer"), GOOD)
def test_good_answer(script: Script, answer: bytes) -> None:
    """A good answer is one whole or byte by byte, and not before its last byte."""
    whole, by_byte = played(script, [answer]), played(script, pieces_of(answer, list(range(999))))
    assert whole == by_byte
    assert whole[1] == Outcome(None)
    assert played(script, [answer[:-1]])[1] is None


@pytest.mark.parametrize(("script", "answer", "reason"), BAD)
def test_bad_answer(script: Script, answer: bytes, reason: str) -> None:
    """A bad answer is one in any pieces, and the reason shows it."""
    outcome = played(script, [answer])[1]
    assert outcome is not None
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)
    assert played(script, pieces_of(answer, list(range(999))))[1] is not None


@given(st.sampled_from(GOOD), st.lists(st.integers(0, 100)))
def test_any_fragmentation(case: tuple[Script, bytes], cuts: list[int]) -> None:
    """Where an answer is cut makes no difference."""
    script, answer = case
    assert played(script, pieces_of(answer, cuts)) == played(script, [answer])


@given(
    st.sampled_from([REDIS, SMTP, POSTGRESQL, spelled(expect="x"), spelled(pattern="a+b")]),
    st.lists(st.binary(max_size=200), max_size=5),
)
def test_any_bytes(script: Script, pieces: list[bytes]) -> None:
    """Whatever a server says ends in an outcome or waits for more, and never raises."""
    dialogue = Dialogue(script)
    dialogue.begin()
    for piece in pieces:
        dialogue.receive(piece)
    dialogue.missing()
    dialogue.end()
    assert dialogue.outcome is not None


def test_bounded() -> None:
    """An answer is looked at up to the limit, and no further."""
    dialogue = Dialogue(spelled(expect="never"), limit=100)
    dialogue.begin()
    for _ in range(100):
        assert dialogue.outcome is None
        dialogue.receive(b"y")
    assert dialogue.outcome is not None
    assert "in the first 100 bytes" in str(dialogue.outcome.reason)


def test_turns() -> None:
    """Each step is said after the answer to the one before."""
    dialogue = Dialogue(SMTP)
    assert dialogue.begin() == b""
    assert dialogue.receive(b"220 hi\r\n") == b"EHLO localhost\r\n"
    assert dialogue.receive(b"250-a\r\n250 b\r\n") == b"QUIT\r\n"
    assert dialogue.receive(b"221 bye\r\n") == b""
    assert dialogue.outcome == Outcome(None)


def test_postgresql_good_bye() -> None:
    """A session that needed no password is terminated; one that asks for it is only left."""
    assert played(POSTGRESQL, [AUTHENTICATION_OK])[0] == POSTGRESQL_STARTUP + POSTGRESQL_TERMINATE
    assert played(POSTGRESQL, [AUTHENTICATION_SASL])[0] == POSTGRESQL_STARTUP
    assert int.from_bytes(POSTGRESQL_STARTUP[:4], "big") == len(POSTGRESQL_STARTUP)


def test_closed_early() -> None:
    """A server that closes says what it still owed."""
    dialogue = Dialogue(REDIS)
    dialogue.begin()
    dialogue.receive(b"-ERR")
    dialogue.end()
    assert dialogue.outcome == Outcome("closed by the server: expected b'+PONG', got b'-ERR'")


def test_unescape() -> None:
    """The escapes stand for their bytes, and everything else for itself in UTF-8."""
    assert unescape(r"a\r\n\t\0\\\x00\xfFü") == b"a\r\n\t\0\\\x00\xff\xc3\xbc"
    assert unescape("a\r\n") == b"a\r\n"


@pytest.mark.parametrize("text", ["\\", r"\q", r"\x1", r"\\\u1234"])
def test_unescape_refuses(text: str) -> None:
    """A check with any other backslash is refused, with the key."""
    with pytest.raises(SettingsError, match=r"health_check\.send: expected .* as its only backsl"):
        HealthCheck(kind="send-expect", send=text)


@pytest.mark.parametrize(
    ("expect", "pattern", "key"),
    [("", "(", "expect_pattern"), (r"\q", "", "expect")],
)
def test_send_expect_refuses(expect: str, pattern: str, key: str) -> None:
    """What cannot be expected is refused, with the key."""
    with pytest.raises(SettingsError, match=rf"^health_check\.{key}: "):
        spelled(expect=expect, pattern=pattern)


@pytest.mark.parametrize(
    ("endpoint", "changed"),
    [
        ("10.0.0.1:80", "10.0.0.1:99"),
        ("web.internal:80", "web.internal:99"),
        ("tcp:10.0.0.1:80", "10.0.0.1:99"),
        ("[::1]:80", "[::1]:99"),
        (r"tcp:\:\:1:80", "[::1]:99"),
    ],
)
def test_with_port(endpoint: str, changed: str) -> None:
    """Another port takes the place of the server's; 0 leaves that."""
    assert with_port(endpoint, 99) == changed
    assert with_port(endpoint, 0) == endpoint


@pytest.mark.parametrize("endpoint", ["unix:/run/x", "tls:example.org:443"])
def test_with_port_without_one(endpoint: str) -> None:
    """Where there is no port to replace, only 0 is one."""
    assert with_port(endpoint, 0) == endpoint
    with pytest.raises(SettingsError, match="is not a host and a port"):
        with_port(endpoint, 99)


def test_hosts() -> None:
    """The host of an address, for certificates and for the Host header."""
    assert host_of("tcp:web.internal:443") == "web.internal"
    assert host_of("[::1]:443") == "::1"
    assert host_of("unix:/run/x") == ""
    assert host_header("[::1]:8080") == "[::1]:8080"
    assert host_header("tcp:10.0.0.1:80") == "10.0.0.1:80"
    assert host_header("unix:/run/x") == "localhost"
