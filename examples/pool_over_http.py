# A pool that an HTTP handler changes while it runs:
#
#     twistd -noy examples/pool_over_http.py
#
# http://127.0.0.1:8081/ lists the servers; `curl -X PUT http://127.0.0.1:8081/127.0.0.1:8000` adds
# one, and `-X DELETE` drains it and takes it out.  Clients connect to port 8080.  LISTEN and ADMIN
# in the environment are other places to listen, as Twisted server endpoint descriptions.

from __future__ import annotations

import json
import os
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.http import NOT_FOUND
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from evproxy import Pool, ProxyService, SettingsError


class Servers(Resource):
    """The servers of `pool`: all of them below ``/``, one below ``/HOST:PORT``."""

    isLeaf = True

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def render_GET(self, request: Request) -> bytes:
        servers = [
            {"name": each.name, "state": each.state, "sessions": each.sessions}
            for each in self._pool.servers
        ]
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(servers).encode() + b"\n"

    def render_PUT(self, request: Request) -> bytes:
        try:
            self._pool.add(self._name(request))
        except SettingsError as error:
            request.setResponseCode(400)
            return f"{error}\n".encode()
        return self.render_GET(request)

    def render_DELETE(self, request: Request) -> bytes:
        try:
            self._pool.remove(self._name(request))
        except LookupError as error:
            request.setResponseCode(NOT_FOUND)
            return f"{error}\n".encode()
        return self.render_GET(request)

    @staticmethod
    def _name(request: Request) -> str:
        path: bytes = request.path
        return path.decode("utf-8", "replace").lstrip("/")


def web(description: str, pool: Pool) -> Any:
    """The service of the HTTP handler."""
    return StreamServerEndpointService(serverFromString(reactor, description), Site(Servers(pool)))


pool = Pool(reactor, ["127.0.0.1:8000"], balance="least-sessions")
application = Application("pool over HTTP")
listen = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
ProxyService(reactor, [listen], pool=pool).setServiceParent(application)
admin = os.environ.get("ADMIN", "tcp:8081:interface=127.0.0.1")
web(admin, pool).setServiceParent(application)
