"""
The order of a replay: when the player sends what, and whether its peer does what it did before.

Pure: the caller passes what comes from the peer, and does each step.  The player sends its bytes
once its peer has sent all that came before them in the recording.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from evproxy.wire.recording import Event, Kind

SHOWN = 16
"""How many bytes of a difference are shown."""

TLS_SPOKEN = ", which is TLS: the recording has what is inside, so give an endpoint with TLS"
"""What is said to a peer that speaks TLS with a player that does not."""

NAMES = {"downstream": "client", "upstream": "server"}


@frozen
class Play:
    """Do what `event` says, `after` seconds; the seconds are those of the recording."""

    event: Event
    after: float


@frozen
class Wait:
    """Wait for the peer."""


@frozen
class Over:
    """
    The replay is over.

    `difference` is the first difference, empty if there is none.  `note` says that the recording
    is not whole, or is empty.
    """

    difference: str = ""
    note: str = ""


class Dialogue:
    """
    The replay of one recording.

    `sent` and `received` count the bytes of the player, without those that its peer was not there
    for, and those of its peer that were as recorded.

    :param events: of the recording.
    :param side: which the player plays, ``downstream`` or ``upstream``.
    """

    def __init__(self, events: Iterator[Event], side: str) -> None:
        self._events = events
        self._side = side
        self._peer = NAMES["upstream" if side == "downstream" else "downstream"]
        self._event: Event | None = None
        self._rest = b""
        self._time = 0.0
        self._buffer = bytearray()
        self._ended = self._reset = self._vague = False
        self._reset_is_recorded = False
        self._unsent: int | None = None
        self.sent = self.received = 0

    @property
    def kept(self) -> int:
        """How many bytes of the peer wait for the player, who has bytes to send first."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """The peer sent `data`."""
        self._buffer += data

    def end(self) -> None:
        """The peer ended its stream in order."""
        self._ended = True

    def reset(self) -> None:
        """The peer reset its connection."""
        self._reset = True

    def lose(self) -> None:
        """The connection is lost, and nobody can tell whether the peer ended or reset it."""
        self._ended = self._vague = True

    def not_sent(self, count: int) -> None:
        """
        The peer was gone before it had everything.

        :param count: so many bytes of a `Play` were not sent; 0: of those that were sent, the last
            ones stayed here.
        """
        self._unsent = (self._unsent or 0) + count
        self.sent -= count

    def step(self) -> Play | Wait | Over:
        """
        Return what to do now; each `Play` comes once.

        :raises MalformedRecording: from the events.
        """
        while True:
            if self._event is None and not self._next():
                return self._at_the_end("the recording has been cut off")
            event = self._event
            assert event is not None
            if event.kind is Kind.STOPPED:
                return self._over(f"the recording stops here: {event.text}")
            if event.kind is Kind.CLOSED:
                return self._at_the_end("")
            if event.side == self._side:
                after, self._time = max(0.0, event.time - self._time), event.time
                self._event = None
                self.sent += len(event.data)
                return Play(event, after)
            step = self._compare_bytes() if event.kind is Kind.DATA else self._compare_end(event)
            if step is not None:
                return step
            self._time = max(self._time, event.time)
            self._event = None

    def missing(self) -> Over:
        """The peer has sent nothing for too long: return the difference."""
        event = self._event
        if event is None:
            return Over()
        if event.kind is Kind.DATA:
            expected = f"{shown(self._rest)}"
        else:
            expected = "the end of the stream" if event.kind is Kind.END else "a reset"
        return self._differs(expected, "nothing")

    def untaken(self) -> Over:
        """The peer has not taken for too long what was sent: return the difference."""
        return Over(difference=f"the {self._peer} did not read everything that was sent")

    def _next(self) -> bool:
        self._event = next(self._events, None)
        if self._event is None:
            return False
        self._rest = self._event.data
        return True

    def _compare_bytes(self) -> Wait | Over | None:
        count = min(len(self._buffer), len(self._rest))
        expected, got = self._rest[:count], bytes(self._buffer[:count])
        if expected != got:
            at = next(place for place in range(count) if expected[place] != got[place])
            self.received += at
            speaks = not self.received and _is_tls(got) and not _is_tls(expected)
            found = shown(bytes(self._buffer[at:])) + (TLS_SPOKEN if speaks else "")
            return self._differs(shown(self._rest[at:]), found)
        self.received += count
        self._rest = self._rest[count:]
        del self._buffer[:count]
        if not self._rest:
            return None
        if self._reset or self._ended:
            return self._differs(shown(self._rest), self._how_it_ended())
        return Wait()

    def _compare_end(self, event: Event) -> Wait | Over | None:
        expected = "the end of the stream" if event.kind is Kind.END else "a reset"
        if self._buffer:
            return self._differs(expected, shown(bytes(self._buffer)))
        if not self._ended and not self._reset:
            return Wait()
        self._reset_is_recorded |= event.kind is Kind.RESET
        if self._vague:
            return None
        got = self._how_it_ended()
        # A reset may follow the end of the stream.
        return None if got == expected else self._differs(expected, got)

    def _how_it_ended(self) -> str:
        return "a reset" if self._reset and not self._ended else "the end of the stream"

    def _at_the_end(self, note: str) -> Over:
        if self._buffer:
            return self._differs("nothing more", shown(bytes(self._buffer)))
        return self._over(note)

    def _over(self, note: str) -> Over:
        if self._unsent is None or self._reset_is_recorded:
            return Over(note=note)
        what = f"{self._unsent} bytes were not sent" if self._unsent else "it did not get all bytes"
        return Over(f"the {self._peer} was gone, {what}", note)

    def _differs(self, expected: str, got: str) -> Over:
        where = f"the stream of the {self._peer} differs at offset {self.received}"
        return Over(difference=f"{where}: expected {expected}, got {got}")


def _is_tls(data: bytes) -> bool:
    """Whether `data` begin as a handshake or an alert (RFC 8446, 5.1)."""
    return data[:1] in (b"\x15", b"\x16") and data[1:2] in (b"\x03", b"")


def shown(data: bytes) -> str:
    """The first bytes of `data` as Python writes them."""
    return f"{data[:SHOWN]!r}" + ("..." if len(data) > SHOWN else "")
