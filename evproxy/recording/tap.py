"""
The tap of one client's connection: its TLS records as the network has them, and their keys.

The recording begins once the session has got its server, after the handshake.  Until then, a
`RecordingTap` keeps what passes.  It then gives the keys first: Wireshark reads a file from its
beginning, and needs them before the packets.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from evproxy.model import CloseReason, Ending, Side
from evproxy.recording.recording import Recording
from evproxy.wire.recording import Event, Kind

MOST_EARLY = 1024 * 1024
"""The most bytes that are kept of one client until its session has got its server."""

TOO_MUCH = "the client sent too much before its session had a server"


class RecordingTap:
    """
    Records what the TLS of one client sends and receives: an `evproxy.sockets.tls_tap.Tap`.

    In its events, the side ``upstream`` is evproxy's end of the connection.

    :param clock: tells the time.
    :param host: evproxy's end, as ``HOST:PORT``; empty for a UNIX socket.

    `began`: the time on `clock` from which the times of the events count.
    """

    def __init__(self, clock: IReactorTime, host: str) -> None:
        self.host = host
        self.began = clock.seconds()
        self._clock = clock
        self._recording: Recording | None = None
        self._secrets = b""
        self._early: list[Event] = []
        self._size = 0
        self._ended: set[Side] = set()

    # What the TLS of the client tells.

    def received(self, data: bytes) -> None:
        """The client sent `data`."""
        self._add(Kind.DATA, Side.DOWNSTREAM, data)

    def sent(self, data: bytes) -> None:
        """The client is sent `data`."""
        self._add(Kind.DATA, Side.UPSTREAM, data)

    def ended(self, side: Side) -> None:
        """`side` ended the stream of its socket."""
        self._over(side, Kind.END)

    def was_reset(self) -> None:
        """The client reset its connection."""
        self._over(Side.DOWNSTREAM, Kind.RESET)

    def secret(self, line: bytes) -> None:
        """OpenSSL has new keys: `line` is one of a key log file, without its end."""
        if self._recording is None:
            self._secrets += line + b"\n"
        else:
            self._recording.add_event(self._event(Kind.SECRETS, data=line + b"\n"))

    # What the recordings tell.

    def begin(self, recording: Recording) -> None:
        """The session has got its server: record in `recording` from now on."""
        early, self._early = self._early, []
        if self._size > MOST_EARLY:
            recording.break_off(0.0, TOO_MUCH)
        if self._secrets:
            recording.add_event(Event(0.0, Kind.SECRETS, data=self._secrets))
        for event in early:
            recording.add_event(event)
        self._recording, self._secrets = recording, b""

    def stop(self) -> None:
        """Record nothing more."""
        if self._recording is not None:
            self._recording.stop()

    def finish(self, reason: CloseReason) -> None:
        """The session is over, because of `reason`."""
        if reason.how is Ending.FINISHED:
            # Before TLS 1.3, a close_notify ends both streams.
            self._over(Side.DOWNSTREAM, Kind.END)
            self._over(Side.UPSTREAM, Kind.END)
        elif reason.how is Ending.RESET and reason.by is Side.DOWNSTREAM:
            self.was_reset()
        if self._recording is not None:
            self._recording.close(reason.code)

    def _over(self, side: Side, kind: Kind) -> None:
        if side not in self._ended:
            self._ended.add(side)
            self._add(kind, side)

    def _add(self, kind: Kind, side: Side, data: bytes = b"") -> None:
        event = self._event(kind, side.value, data)
        if self._recording is not None:
            self._recording.add_event(event)
        elif self._size <= MOST_EARLY:
            self._size += len(data)
            self._early.append(event)
            if self._size > MOST_EARLY:
                self._early.clear()

    def _event(self, kind: Kind, side: str = "", data: bytes = b"") -> Event:
        return Event(max(0.0, self._clock.seconds() - self.began), kind, side, data)
