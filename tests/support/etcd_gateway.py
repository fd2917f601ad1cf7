"""A double of etcd's HTTP gateway, and other shared parts of the tests of etcd."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from attrs import define, field
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from evproxy.settings import Discover
from evproxy.upstream.discovery.by_kind import discovery_for
from tests.support.discovery_recorder import Told
from tests.support.waiting import Waiting

OFTEN = 0.05
"""Seconds until the first retry after a failure."""

PREFIX = "/evproxy/web/"


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def watching(reactor: Any, urls: Sequence[str], **settings: float) -> tuple[Told, Any]:
    """A started discovery, and its recorder."""
    told = Told()
    discover = Discover(
        "etcd",
        prefix=PREFIX,
        endpoints=tuple(urls),
        **{"min_interval": OFTEN, **settings},  # type: ignore[arg-type]
    )
    discovery = discovery_for(reactor, discover, Random(1))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    return told, discovery


@define
class Gateway:
    """A double of etcd, whose answers the test sets."""

    keys: dict[str, str] = field(factory=dict)
    revision: int = 1
    watches: list[Request] = field(factory=list)
    on_range: Callable[[Request], bytes | int] | None = None
    on_watch: Callable[[Request], bytes | int] | None = None
    ranges: int = 0
    left: int = 0
    _waiting: Waiting = field(factory=Waiting)

    def site(self) -> Site:
        """The HTTP site that serves the gateway."""
        root = Resource()
        version = Resource()
        kv = Resource()
        root.putChild(b"v3", version)
        version.putChild(b"kv", kv)
        kv.putChild(b"range", Page(self.range))
        version.putChild(b"watch", Page(self.watch))
        return Site(root)

    def range(self, request: Request) -> bytes | int:
        self.ranges += 1
        self._waiting.look()
        if self.on_range is not None:
            return self.on_range(request)
        kvs = [
            {"key": encoded(PREFIX + name), "value": encoded(json.dumps(value))}
            for name, value in self.keys.items()
        ]
        return json.dumps({"header": {"revision": str(self.revision)}, "kvs": kvs}).encode()

    def watch(self, request: Request) -> bytes | int:
        if self.on_watch is not None:
            return self.on_watch(request)
        request.notifyFinish().addErrback(self._gone)
        request.write(b'{"result": {"created": true}}\n')
        self.watches.append(request)
        self._waiting.look()
        return NOT_DONE_YET

    def _gone(self, reason: Failure) -> None:
        self.left += 1
        self._waiting.look()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true of the requests."""
        await self._waiting.until(holds)


class Page(Resource):
    isLeaf = True

    def __init__(self, answer: Callable[[Request], bytes | int]) -> None:
        super().__init__()
        self._answer = answer

    def render_POST(self, request: Request) -> bytes | int:
        return self._answer(request)
