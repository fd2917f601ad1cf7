"""
The stage that records one session.
"""

from __future__ import annotations

from evproxy.model import CloseReason, Ending, Side
from evproxy.recording.recording import Recording
from evproxy.relay.stages import PassThrough
from evproxy.wire.recording import Kind


class RecordingStage(PassThrough):
    """
    A `Stage` that changes nothing, and records what passes.

    :param recording: of the session.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._ended: set[Side] = set()
        self._over: dict[Side, float] = {}

    def upload(self, data: bytes) -> None:
        self._recording.add(Kind.DATA, Side.DOWNSTREAM, data)
        super().upload(data)

    def download(self, data: bytes) -> None:
        self._recording.add(Kind.DATA, Side.UPSTREAM, data)
        super().download(data)

    def ended(self, side: Side) -> None:
        self._ended.add(side)
        self._recording.add(Kind.END, side)
        super().ended(side)

    def flush(self, side: Side) -> None:
        # Whether this is a reset, the reason of the session's end says.
        self._over.setdefault(side, self._recording.now())

    def stop(self) -> None:
        """Record nothing more."""
        self._recording.stop()

    def finish(self, reason: CloseReason) -> None:
        """The session is over, because of `reason`."""
        for side in (Side.DOWNSTREAM, Side.UPSTREAM):
            if side in self._over and side not in self._ended:
                if reason.how is Ending.FINISHED:
                    # Twisted's own TLS ends both streams at once.
                    self._recording.add(Kind.END, side, time=self._over[side])
                elif reason.how is Ending.RESET and reason.by is side:
                    self._recording.add(Kind.RESET, side, time=self._over[side])
        self._recording.close(reason.code)
