# A pool that an HTTP handler changes while it runs:
#
#     twistd -noy examples/pool_over_http.py
#
# http://127.0.0.1:8081/servers lists the servers, and `curl -X PUT` or `-X DELETE` of
# http://127.0.0.1:8081/servers/127.0.0.1:8000 adds or removes one.
# http://127.0.0.1:8081/sessions lists the live sessions, and `-X DELETE` of /sessions/ID ends one.
# Clients connect to port 8080.  LISTEN and ADMIN in the environment are other places to listen, as
# Twisted server endpoint descriptions.

from __future__ import annotations

import json
import os
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.http import BAD_REQUEST, NOT_FOUND
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from evproxy import Pool, ProxyService, SettingsError


def answer(request: Request, value: Any) -> bytes:
    """`value` as JSON."""
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(value).encode() + b"\n"


def refuse(request: Request, code: int, error: Exception) -> bytes:
    """An answer with the status `code`."""
    request.setResponseCode(code)
    return f"{error}\n".encode()


class Servers(Resource):
    """The servers of `pool`: all of them at ``/servers``, one at ``/servers/HOST:PORT``."""

    isLeaf = True

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def render_GET(self, request: Request) -> bytes:
        servers = [
            {"name": each.name, "state": each.state, "sessions": each.sessions}
            for each in self._pool.servers
        ]
        return answer(request, servers)

    def render_PUT(self, request: Request) -> bytes:
        try:
            self._pool.add(last_part(request))
        except SettingsError as error:
            return refuse(request, BAD_REQUEST, error)
        return self.render_GET(request)

    def render_DELETE(self, request: Request) -> bytes:
        try:
            self._pool.remove(last_part(request))
        except LookupError as error:
            return refuse(request, NOT_FOUND, error)
        return self.render_GET(request)


class Sessions(Resource):
    """The live sessions of `proxy`: all of them at ``/sessions``, one at ``/sessions/ID``."""

    isLeaf = True

    def __init__(self, proxy: ProxyService) -> None:
        super().__init__()
        self._proxy = proxy

    def render_GET(self, request: Request) -> bytes:
        sessions = [
            {
                "id": each.id,
                "client": each.peer,
                "server": each.upstream,
                "phase": each.phase.value,
                "seconds": round(each.duration, 3),
                "bytes": [each.bytes_to_upstream, each.bytes_to_downstream],
            }
            for each in self._proxy.status().sessions
        ]
        return answer(request, sessions)

    def render_DELETE(self, request: Request) -> bytes:
        try:
            self._proxy.end_session(int(last_part(request)))
        except (LookupError, ValueError) as error:
            return refuse(request, NOT_FOUND, error)
        return self.render_GET(request)


def last_part(request: Request) -> str:
    """What follows the last slash of the path."""
    path: bytes = request.path
    return path.decode("utf-8", "replace").rpartition("/")[2]


pool = Pool(reactor, ["127.0.0.1:8000"], balance="least-sessions")
application = Application("pool over HTTP")
listen = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
proxy = ProxyService(reactor, [listen], pool=pool)
proxy.setServiceParent(application)

root = Resource()
root.putChild(b"servers", Servers(pool))
root.putChild(b"sessions", Sessions(proxy))
admin = os.environ.get("ADMIN", "tcp:8081:interface=127.0.0.1")
StreamServerEndpointService(serverFromString(reactor, admin), Site(root)).setServiceParent(
    application
)
