"""
What a check says to a server, and whether the answers are the expected ones.

Pure: bytes in, bytes and an outcome out; no transport, no clock.  Answers may come in
any pieces, one byte at a time too, and are bounded in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attrs import define, field, frozen

from evproxy.settings import ANSWER_LIMIT

SHOWN_BYTES = 48
"""How much of an unexpected answer a reason shows."""


@frozen
class Matched:
    """The answer is the expected one and ends after `used` bytes; `reply` is sent for good-bye."""

    used: int
    reply: bytes = b""


@frozen
class Refused:
    """No further byte can make this answer the expected one, because of `reason`."""

    reason: str


class Expectation(Protocol):
    """Tells an expected answer from another one."""

    @property
    def wanted(self) -> str:
        """How reasons name the expected answer."""

    def judge(self, received: bytes) -> Matched | Refused | None:
        """What the bytes received so far are; ``None`` if that is not clear yet."""


@frozen
class Exchange:
    """One step: `send` (perhaps nothing), then wait for what `expect` accepts."""

    send: bytes
    expect: Expectation


@frozen
class Outcome:
    """How a dialogue ended: well (``None``), or with a reason."""

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
    """The regular expression `pattern` is found in what has been received so far."""

    pattern: re.Pattern[bytes]

    @property
    def wanted(self) -> str:
        return f"a match of {self.pattern.pattern!r}"

    def judge(self, received: bytes) -> Matched | None:
        found = self.pattern.search(received)
        return Matched(found.end()) if found is not None else None


@frozen
class Line:
    """The answer's first line is `text`; lines end with LF or CR LF."""

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
    """The reason when `received` came instead of what was `wanted`."""
    shown = repr(received[:SHOWN_BYTES]) + ("…" if len(received) > SHOWN_BYTES else "")
    return f"expected {wanted}, got {shown}"


@define
class Dialogue:
    """
    A sequence of exchanges, at least one, with one server.

    Call `begin` once, then `receive` for every piece; each returns what to send.
    `outcome` is set when all exchanges matched or one was refused.
    """

    _exchanges: Sequence[Exchange]
    _limit: int = ANSWER_LIMIT
    _step: int = field(default=0, init=False)
    _received: bytearray = field(factory=bytearray, init=False)
    outcome: Outcome | None = field(default=None, init=False)

    def begin(self) -> bytes:
        """The connection is open: what to send first."""
        return self._exchanges[0].send + self._advance()

    def receive(self, data: bytes) -> bytes:
        """More bytes came: what to send now, often nothing."""
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
        """The server ended the connection: nothing more will be received."""
        if self.outcome is None:
            missing = self.missing()
            self.outcome = Outcome("closed by the server" + (f": {missing}" if missing else ""))

    def missing(self) -> str:
        """What is still expected and what came instead; empty if nothing came yet."""
        if self.outcome is not None or not self._received:
            return ""
        return unexpected(self._exchanges[self._step].expect.wanted, bytes(self._received))
