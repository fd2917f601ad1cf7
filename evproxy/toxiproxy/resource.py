"""
The resource of Toxiproxy's API: from a request of HTTP to a call, and its answer back.
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_CONTENT
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from evproxy.admin.site import AdminRequest
from evproxy.toxiproxy.api import Answer, answer
from evproxy.toxiproxy.proxies import Proxies

_log = Logger()


class ToxiproxyResource(Resource):
    """
    Answers every request; calls run one after the other.

    :param proxies: what the calls change.
    """

    isLeaf = True

    def __init__(self, proxies: Proxies) -> None:
        super().__init__()
        self._proxies = proxies
        self._turns = DeferredLock()

    def render(self, request: AdminRequest) -> int:
        """Answer `request`, at once or later."""
        answered = self._turns.run(lambda: Deferred.fromCoroutine(self._answer(request)))
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        answered.addErrback(_broken)
        answered.addCallback(lambda found: None if gone else _write(request, found))
        return NOT_DONE_YET

    async def _answer(self, request: AdminRequest) -> Answer:
        if request.content.too_long:
            return Answer(413)
        return await answer(
            self._proxies,
            request.method.decode("latin-1"),
            request.path.decode("latin-1"),
            (request.getHeader(b"user-agent") or b"").decode("latin-1"),
            request.content.getvalue(),
        )


def _broken(failure: Failure) -> Answer:
    _log.failure("A call of Toxiproxy's API broke", failure)
    return Answer(500, {"error": "internal error", "status": 500})


def _write(request: AdminRequest, found: Answer) -> None:
    request.setResponseCode(found.status)
    kind, body = b"text/plain; charset=utf-8", found.text.encode()
    if not body and found.body is not None:
        kind, body = b"application/json", json.dumps(found.body).encode() + b"\n"
    if found.status != NO_CONTENT:
        request.setHeader(b"content-type", kind)
        request.setHeader(b"content-length", b"%d" % len(body))
    request.send(body)
