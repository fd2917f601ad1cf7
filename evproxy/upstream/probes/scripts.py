"""
The dialogues of the ``redis``, ``smtp``, ``postgresql`` and ``send-expect`` checks.

Pure.  The first three do what HAProxy's checks do (``src/tcpcheck.c``: ``redis-check``,
``smtpchk``, ``pgsql-check``); the docstrings name the differences.
"""

from __future__ import annotations

import re
import struct

from attrs import frozen

from evproxy.settings import HealthCheck
from evproxy.upstream.probes.dialogue import (
    Contains,
    Exchange,
    Expectation,
    Line,
    Matched,
    Matches,
    Refused,
    unexpected,
)
from evproxy.upstream.reasons import from_outside, one_line

REDIS_PING = b"*1\r\n$4\r\nPING\r\n"
REDIS = (Exchange(REDIS_PING, Line(b"+PONG")),)
"""
PING, and only ``+PONG`` passes.  As with HAProxy, a server that asks for a password
(``-NOAUTH``), or that is still loading its data (``-LOADING``), fails.  For a server with a
password, use a ``send-expect`` check that authenticates.
"""


@frozen
class SmtpReply:
    """A complete SMTP reply of one or more lines, with the status `code` (RFC 5321, 4.2)."""

    code: int

    @property
    def wanted(self) -> str:
        return f"reply {self.code}"

    def judge(self, received: bytes) -> Matched | Refused | None:
        start = 0
        while (end := received.find(b"\n", start)) >= 0:
            line = received[start:end]
            if re.match(rb"\d{3}(?:[ -]|\r?$)", line) is None or int(line[:3]) != self.code:
                return Refused(unexpected(self.wanted, line.rstrip(b"\r")))
            start = end + 1
            if line[3:4] != b"-":
                return Matched(start)
        return None


SMTP = (
    Exchange(b"", SmtpReply(220)),
    Exchange(b"EHLO localhost\r\n", SmtpReply(250)),
    Exchange(b"QUIT\r\n", SmtpReply(221)),
)
"""The banner, then EHLO and QUIT: for the server, a complete short session."""

_STARTUP = b"user\0postgres\0application_name\0evproxy\0\0"
POSTGRESQL_STARTUP = struct.pack("!II", 8 + len(_STARTUP), 196608) + _STARTUP
"""StartupMessage, protocol 3.0 (PostgreSQL manual, "Message Formats")."""

POSTGRESQL_TERMINATE = b"X\0\0\0\4"

_SERVER_DECIDED = ("28", "3D")
"""
SQLSTATE classes that only a working server answers: no such role, no such database, refused by
pg_hba.conf.  libpq's ``PQping`` accepts these too.
"""


@frozen
class PostgresqlAnswer:
    """
    The server asks for authentication, or needs none: it accepts sessions.

    An error means that the server does not accept sessions: it is starting up, shutting down,
    or has too many clients.  Authorization errors are accepted, because a healthy server
    answers them too.
    """

    wanted = "an authentication request"

    def judge(self, received: bytes) -> Matched | Refused | None:
        if received[:1] not in (b"", b"R", b"E"):
            return Refused(unexpected(self.wanted, received))
        if len(received) < 5:
            return None
        end = 1 + int.from_bytes(received[1:5], "big")
        if end < 9:
            return Refused(unexpected(self.wanted, received))
        if len(received) < end:
            return None
        if received[:1] == b"R":
            needs_nothing = received[5:9] == b"\0\0\0\0"
            return Matched(end, POSTGRESQL_TERMINATE if needs_nothing else b"")
        fields = {entry[:1]: entry[1:] for entry in received[5:end].split(b"\0")}
        code = fields.get(b"C", b"").decode("ascii", "replace")
        if code.startswith(_SERVER_DECIDED):
            return Matched(end)
        message = from_outside(fields.get(b"M", b"").decode("utf-8", "replace"))
        return Refused(one_line(f"PostgreSQL error {from_outside(code)}: {message}"))


POSTGRESQL = (Exchange(POSTGRESQL_STARTUP, PostgresqlAnswer()),)


def send_expect(check: HealthCheck) -> tuple[Exchange, ...]:
    """
    The one exchange that the settings of `check` describe.

    `send` and `expect` may have the escapes of `unescape`.  `expect` may be anywhere in the
    answer, and so may a match of `expect_pattern`, a regular expression (`re`) for bytes.
    Without either, the check does not wait for an answer.
    """
    expect: Expectation
    if check.expect_pattern:
        expect = Matches(re.compile(check.expect_pattern.encode()))
    else:
        expect = Contains(unescape(check.expect))
    return (Exchange(unescape(check.send), expect),)


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([rnt0\\]))")
_LETTERS = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    r"""
    The UTF-8 bytes of `text`, with ``\r \n \t \0 \\`` and ``\xHH`` replaced by their bytes.

    `HealthCheck` refuses any other backslash.
    """

    def replaced(found: re.Match[bytes]) -> bytes:
        digits, letter = found.groups()
        return bytes.fromhex(digits.decode()) if digits else _LETTERS[letter]

    return _ESCAPE.sub(replaced, text.encode())
