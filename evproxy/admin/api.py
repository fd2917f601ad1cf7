"""
The resource of the admin interface: from a request of HTTP to an operation, and its answer back.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from evproxy.admin.answers import Answer, Problem, Streamed, as_json
from evproxy.admin.guard import Asking, Guard
from evproxy.admin.openapi import document
from evproxy.admin.operations import Asked, Context, Operation, find
from evproxy.admin.questions import read_body, read_query
from evproxy.admin.site import AdminRequest
from evproxy.config.canonical import host_and_port
from evproxy.config.reading import Surroundings
from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.upstream.address import check_upstream

_log = Logger()

_ALWAYS = {
    b"cache-control": b"no-store",
    b"x-content-type-options": b"nosniff",
    b"server": b"evproxy",
}


class Api(Resource):
    """
    Runs the operations.

    :param context: what the operations work on.
    :param guard: decides which requests are served.
    :param operations: every operation, but that of the OpenAPI document itself.
    """

    isLeaf = True

    def __init__(self, context: Context, guard: Guard, operations: Sequence[Operation]) -> None:
        super().__init__()
        self._context = context
        self._guard = guard
        described = Operation(
            "GET", "/openapi.json", "openapi", "Describes this interface.", self._describe
        )
        self._operations = (*operations, described)
        shown = [each for each in self._operations if each.described]
        self._document = as_json(document(shown, context.version))

    def _describe(self, context: Context, asked: Asked) -> Answer:
        return self._document

    def render(self, request: AdminRequest) -> int:
        """Answer `request`, at once or later."""
        answering = Deferred.fromCoroutine(self._answered(request))
        # The request is over before its answer if the client has left.
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(_problem_of)
        answering.addCallback(_write, request)
        answering.addErrback(lambda failure: failure.trap(CancelledError) and None)
        return NOT_DONE_YET

    async def _answered(self, request: AdminRequest) -> Answer | Streamed:
        method = request.method.decode("latin-1")
        self._guard.check(_asking(request, method))
        parts = _parts(request)
        operation, places = find(self._operations, method, parts)
        content = request.content
        if content.too_long:
            raise Problem(413, "the body is too long")
        _, _, query = request.uri.partition(b"?")
        asked = Asked(
            places,
            read_query(operation.query, query.decode("latin-1")),
            read_body(
                operation.body,
                content.read(),
                _last(request, b"content-type"),
                Surroundings(endpoint_fault=self._endpoint_fault),
            ),
            _last(request, b"accept"),
        )
        if operation.changes:
            path = escaped(request.path.decode("latin-1"))
            _log.info("Admin: {peer} asks for POST {path}", peer=_peer(request), path=path)
        answer = operation.run(self._context, asked)
        return await answer if inspect.isawaitable(answer) else answer

    def _endpoint_fault(self, description: str) -> str | None:
        try:
            check_upstream(self._context.reactor, description)
        except SettingsError as error:
            return str(error)
        return None


def _values(request: Request, name: bytes) -> tuple[str, ...]:
    """The values of a header, each of whose bytes is a character."""
    return tuple(each.decode("latin-1") for each in request.requestHeaders.getRawHeaders(name, ()))


def _last(request: Request, name: bytes) -> str:
    """The last value of a header; empty: there is none."""
    return (_values(request, name) or ("",))[-1]


def _asking(request: Request, method: str) -> Asking:
    return Asking(
        local=isinstance(request.getHost(), UNIXAddress),
        changes=method not in ("GET", "HEAD"),
        hosts=_values(request, b"host"),
        origins=_values(request, b"origin"),
        sites=_values(request, b"sec-fetch-site"),
        credentials=_values(request, b"authorization"),
        old=request.clientproto == b"HTTP/1.0",
    )


def _parts(request: Request) -> list[str]:
    """The parts of the path, decoded."""
    try:
        return [part.decode() for part in request.postpath or ()]
    except UnicodeDecodeError:
        raise Problem(400, "the path is not UTF-8") from None


def _peer(request: Request) -> str:
    address = request.getClientAddress()
    host = getattr(address, "host", None)
    return "unix" if host is None else host_and_port(host, address.port)


def _problem_of(failure: Failure) -> Answer:
    """The answer for `failure`; an unexpected exception is logged."""
    error = failure.value
    if isinstance(error, Problem):
        return error.answer
    if isinstance(error, CancelledError):
        raise error
    _log.failure("A request to the admin interface broke", failure)
    return Problem(500, "this request broke evproxy's admin interface: see the log").answer


def _write(answer: Answer | Streamed, request: AdminRequest) -> None:
    for name, value in _ALWAYS.items():
        request.setHeader(name, value)
    request.setHeader(b"content-type", answer.content_type.encode())
    if isinstance(answer, Streamed):
        if request.method == b"HEAD":
            request.finish()
        else:
            answer.start(request)
        return
    request.setResponseCode(answer.code)
    request.setHeader(b"content-length", b"%d" % len(answer.body))
    for key, text in answer.headers.items():
        request.setHeader(key.encode(), text.encode())
    request.send(answer.body)
