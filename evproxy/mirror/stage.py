"""
The stage that gives a copy what the client and its server send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from evproxy.mirror.session_copy import SessionCopy
from evproxy.model import CloseReason, Ending, Side
from evproxy.relay.stages import Outlet, PassThrough


class Ends(Protocol):
    """The session of the stage."""

    reason: CloseReason | None


class MirrorStage(PassThrough):
    """
    A `Stage` that changes nothing, and passes bytes on before the copy gets them.

    :param copy: of the session.
    :param session: tells at the end why it ended.
    """

    def __init__(self, copy: SessionCopy, session: Ends) -> None:
        self._copy = copy
        self._session: Ends | None = session
        self._ended: set[Side] = set()

    def start(self, upload: Outlet, download: Outlet) -> None:
        super().start(upload, download)
        self._safely(self._copy.start)

    def upload(self, data: bytes) -> None:
        super().upload(data)
        self._safely(self._copy.upload, data)

    def download(self, data: bytes) -> None:
        super().download(data)
        self._safely(self._copy.download, data)

    def ended(self, side: Side) -> None:
        super().ended(side)
        self._end(side)

    def closed(self) -> None:
        super().closed()
        session, self._session = self._session, None
        reason = None if session is None else session.reason
        if reason is not None and reason.how is Ending.FINISHED:
            # Twisted's own TLS ends both streams at once, and `ended` is not called.
            self._end(reason.by)
        self._safely(self._copy.session_over)

    def _end(self, side: Side) -> None:
        if side in self._ended:
            return
        self._ended.add(side)
        if side is Side.DOWNSTREAM:
            self._safely(self._copy.client_ended)
        elif side is Side.UPSTREAM:
            self._safely(self._copy.server_ended)

    def _safely(self, what: Callable[..., object], *arguments: object) -> None:
        """The session goes on, whatever happens to its copy."""
        try:
            what(*arguments)
        except Exception:
            self._copy.broke()
