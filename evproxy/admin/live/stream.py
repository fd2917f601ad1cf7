"""
One stream of events to one viewer: server-sent events (HTML Living Standard, section 9.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from evproxy.admin.live.question import Question

PATIENCE = 10.0
"""Seconds within which a viewer must have taken an event; then its connection is reset."""

RETRY = 1000
"""Milliseconds after which a browser whose stream has broken asks again."""

CONTENT_TYPE = "text/event-stream"


@implementer(IPushProducer)
class EventStream:
    """
    The events that go to one viewer.

    While the viewer takes nothing, it gets nothing: so at most one event is kept for it.

    :param request: its request, which is answered by the events.
    :param question: what it wants to see.
    :param seconds: the clock.
    :param gone: is called once, when the stream is over.
    """

    def __init__(
        self,
        request: Request,
        question: Question,
        seconds: Callable[[], float],
        gone: Callable[[EventStream], None],
    ) -> None:
        self.question = question
        self._request = request
        self._seconds = seconds
        self._left = question.events
        self._paused_since: float | None = None
        request.notifyFinish().addBoth(lambda _: gone(self))
        request.registerProducer(self, True)
        request.write(b"retry: %d\n\n" % RETRY)

    def send(self, event: str, data: bytes) -> bool:
        """
        Send `data`, one line, as an event; a viewer that has not taken the last one waits.

        :return: whether it was sent.
        """
        since = self._paused_since
        if since is None:
            # Twisted may call `pauseProducing` in here: the event is sent nevertheless.
            self._request.write(b"event: %b\ndata: %b\n\n" % (event.encode(), data))
            return True
        if self._seconds() - since > PATIENCE:
            channel: Any = self._request.channel
            channel.transport.abortConnection()
        return False

    def look(self, data: bytes) -> None:
        """Send a look; the answer ends with it, if the viewer wants no more."""
        if self.send("look", data) and self._left:
            self._left -= 1
            if not self._left:
                self.finish()

    def finish(self) -> None:
        """End the answer."""
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        """The viewer is slow."""
        if self._paused_since is None:
            self._paused_since = self._seconds()

    def resumeProducing(self) -> None:
        """The viewer has taken everything."""
        self._paused_since = None

    def stopProducing(self) -> None:
        """The viewer has left."""
