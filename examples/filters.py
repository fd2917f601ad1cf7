"""
Filters in Python, for `filters` of a listener in the configuration file:

    [[listeners]]
    filters = ["filters:Hexdump", "filters:Banner"]

A filter is a plain object, made for each session; see docs/faults.md.
"""

from __future__ import annotations

from twisted.logger import Logger

from evproxy import SessionStatus, Side
from evproxy.stages import FilteredSession

log = Logger()


class Hexdump:
    """Logs the first bytes of each chunk."""

    def __init__(self, status: SessionStatus) -> None:
        self.name = status.unique_id

    def upload(self, data: bytes) -> bytes:
        log.info("{name} > {bytes}", name=self.name, bytes=data[:64].hex(" "))
        return data

    def download(self, data: bytes) -> bytes:
        log.info("{name} < {bytes}", name=self.name, bytes=data[:64].hex(" "))
        return data


class Banner:
    """Rewrites the first line that the server sends, and holds it until it is complete."""

    LONGEST = 1024

    def __init__(self, status: SessionStatus) -> None:
        self.kept = b""
        self.done = False

    def download(self, data: bytes) -> bytes | None:
        if self.done:
            return data
        self.kept += data
        _, newline, rest = self.kept.partition(b"\n")
        if not newline and len(self.kept) < self.LONGEST:
            return None
        self.done = True
        return b"220 mail.example.org ready\r\n" + rest if newline else self.kept

    def held(self, side: Side) -> int:
        return len(self.kept) if side is Side.UPSTREAM and not self.done else 0

    def ended(self, side: Side) -> bytes | None:
        return self.kept if self.held(side) else None


class StartTLSWatch:
    """Resets SMTP sessions whose server does not offer STARTTLS in its answer to EHLO."""

    LONGEST = 4096

    def __init__(self, status: SessionStatus) -> None:
        self.answer = b""
        self.asked = self.done = False

    def started(self, session: FilteredSession) -> None:
        self.session = session

    def upload(self, data: bytes) -> bytes:
        self.asked = self.asked or data[:4].upper() == b"EHLO"
        return data

    def download(self, data: bytes) -> bytes | None:
        if not self.asked or self.done:
            return data
        self.answer += data
        last = self.answer.rstrip(b"\r\n").rpartition(b"\n")[2]
        if not self.answer.endswith(b"\n") or last[3:4] == b"-":
            # More lines follow (RFC 5321, section 4.2.1).
            self.done = len(self.answer) > self.LONGEST
            return data
        self.done = True
        if b"STARTTLS" not in self.answer.upper():
            log.warn("{name}: no STARTTLS", name=self.session.status.unique_id)
            self.session.reset()
            return None
        return data


class Prefix:
    """Takes a line with a token from the client before the server gets any byte."""

    LONGEST = 256
    TOKEN = b"let me in"

    def __init__(self, status: SessionStatus) -> None:
        self.kept = b""
        self.done = False

    def started(self, session: FilteredSession) -> None:
        self.session = session

    def upload(self, data: bytes) -> bytes | None:
        if self.done:
            return data
        self.kept += data
        line, newline, rest = self.kept.partition(b"\n")
        if newline and line.strip() == self.TOKEN:
            self.done = True
            self.session.send_download(b"welcome\n")
            return rest
        if newline or len(self.kept) > self.LONGEST:
            self.session.reset()
        return None

    def held(self, side: Side) -> int:
        return len(self.kept) if side is Side.DOWNSTREAM and not self.done else 0
