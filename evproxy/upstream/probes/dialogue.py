"""
A dialogue of a check with a server: what to send, and whether the answers are as expected.

Pure: takes bytes, returns bytes and an outcome; no transport, no clock.  Answers may arrive in
pieces of any size, even one byte at a time, and are limited in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attrs import define, field, frozen

from evproxy.settings import ANSWER_LIMIT

SHOWN_BYTES = 48
"""How many bytes of an unexpected answer a reason shows."""


@frozen
class Matched:
    """The answer is as expected and ends after `used` bytes; send `reply` before closing."""

    used: int
    reply: bytes = b""


@frozen
class Refused:
    """The answer is wrong, whatever bytes follow, because of `reason`."""

    reason: str


class Expectation(Protocol):
    """Decides whether an answer is as expected."""

    @property
    def wanted(self) -> str:
        """The name of the expected answer in reasons."""

    def judge(self, received: bytes) -> Matched | Refused | None:
        """The decision for the bytes received so far; ``None`` if it needs more bytes."""


@frozen
class Exchange:
    """One step: `send` (perhaps nothing), then wait for what `expect` accepts."""

    send: bytes
    expect: Expectation


@frozen
class Outcome:
    """The end of a dialogue: a success (``None``), or the reason of the failure."""

    reason: str | None


@frozen
class Contains:
    """`literal` is somewhere in the answer."""

    literal: bytes

    @property
    def wanted(self) -> str:
        return repr(self.literal)

    def judge(self, received: bytes) -> Matched | None:
        place = received.find(self.literal)
        return Matched(place + len(self.literal)) if place >= 0 else None


@frozen
class Matches:
    """The regular expression `pattern` matches somewhere in the bytes received so far."""

    pattern: re.Pattern[bytes]

    @property
    def wanted(self) -> str:
        return f"a match of {self.pattern.pattern!r}"

    def judge(self, received: bytes) -> Matched | None:
        found = self.pattern.search(received)
        return Matched(found.end()) if found is not None else None


@frozen
class Line:
    """The first line of the answer is `text`; lines end with LF or CR LF."""

    text: bytes

    @property
    def wanted(self) -> str:
        return repr(self.text)

    def judge(self, received: bytes) -> Matched | Refused | None:
        end = received.find(b"\n")
        if end < 0:
            return None
        if received[:end].rstrip(b"\r") == self.text:
            return Matched(end + 1)
        return Refused(unexpected(self.wanted, received))


def unexpected(wanted: str, received: bytes) -> str:
    """The reason when the server sent `received` instead of the `wanted` answer."""
    shown = repr(received[:SHOWN_BYTES]) + ("…" if len(received) > SHOWN_BYTES else "")
    return f"expected {wanted}, got {shown}"


@define
class Dialogue:
    """
    A sequence of at least one exchange with one server.

    Call `begin` once, then `receive` for every piece of data.  Both return the bytes to send.
    `outcome` is set when all exchanges have matched, or when an answer is refused.
    """

    _exchanges: Sequence[Exchange]
    _limit: int = ANSWER_LIMIT
    _step: int = field(default=0, init=False)
    _received: bytearray = field(factory=bytearray, init=False)
    outcome: Outcome | None = field(default=None, init=False)

    def begin(self) -> bytes:
        """The connection is open.  Returns the first bytes to send."""
        return self._exchanges[0].send + self._advance()

    def receive(self, data: bytes) -> bytes:
        """The server sent `data`.  Returns the bytes to send now, often none."""
        self._received += data
        return self._advance()

    def _advance(self) -> bytes:
        to_send = bytearray()
        while self.outcome is None:
            judgement = self._exchanges[self._step].expect.judge(bytes(self._received))
            if judgement is None:
                if len(self._received) >= self._limit:
                    self.outcome = Outcome(f"{self.missing()} in the first {self._limit} bytes")
                break
            if isinstance(judgement, Refused):
                self.outcome = Outcome(judgement.reason)
                break
            del self._received[: judgement.used]
            to_send += judgement.reply
            self._step += 1
            if self._step == len(self._exchanges):
                self.outcome = Outcome(None)
            else:
                to_send += self._exchanges[self._step].send
        return bytes(to_send)

    def end(self) -> None:
        """The server closed the connection: no more data will arrive."""
        if self.outcome is None:
            missing = self.missing()
            self.outcome = Outcome("closed by the server" + (f": {missing}" if missing else ""))

    def missing(self) -> str:
        """What the dialogue expects and what the server sent; empty if it sent nothing yet."""
        if self.outcome is not None or not self._received:
            return ""
        return unexpected(self._exchanges[self._step].expect.wanted, bytes(self._received))
