"""A proxy in another process with pools and servers in every state, for whoever looks at it."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.admin_process import ask, port_of
from tests.support.blocking_clients import Upstream
from tests.support.twistd import PATIENCE, Running, wait_until

NASTY = "<img src=x onerror=alert(1)>"
"""A text that must never become an element."""

ESCAPED = NASTY.replace("=", r"\=")
"""The same in an endpoint description."""

LONG = "the answer of the health check was not what it has to be, " * 8

CONFIG = """
[admin]
listen = "tcp:0:interface=127.0.0.1"

[[listeners]]
name = "web"
listen = "tcp:0:interface=127.0.0.1"
pool = "web"

[[listeners]]
name = "odd"
listen = "tcp:0:interface=127.0.0.1"
pool = "odd"
route = "tests.support.scene:odd_route"

[pools.web]
balance = "least-sessions"
upstreams = [
  {{endpoint = "127.0.0.1:{good}", max_sessions = 1000}},
  {{endpoint = "127.0.0.1:1", weight = 200}},
  {{endpoint = "127.0.0.2:{good}", backup = true, tags = ["zone:b"]}},
]
ejection = {{failures = 1, base_time = 300, max_percent = 100}}

[pools.api]
upstreams = ["127.0.0.1:{bad}", "127.0.0.3:{bad}"]
health_check = {{kind = "smtp", interval = 0.2, timeout = 0.2, fall = 1}}

[pools.odd]
balance = "random-two"
upstreams = ['unix:/tmp/{escaped}', "127.0.0.1:{good}"]
ejection = {{failures = 1, base_time = 300, max_percent = 100}}
"""


def odd_route(client: Any) -> str:
    """A route whose note comes from outside."""
    client.note(f"host={NASTY}")
    return "odd"


class Scene:
    """
    The proxy, and its clients.

    `admin`: the port of its admin interface.  `ports`: those of its listeners.
    """

    def __init__(self, running: Running, upstream: Upstream) -> None:
        self.running = running
        self.upstream = upstream
        self.admin = port_of(running)
        listeners = ask(self.admin, "/status")["listeners"]
        self.ports = [int(each["address"].rpartition(":")[2]) for each in listeners]

    def post(self, path: str, body: Any = None) -> Any:
        """Change the proxy."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin}{path}",
            json.dumps(body or {}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def server(self, pool: str, name: str) -> Any:
        """What the interface shows of a server."""
        return ask(self.admin, f"/pools/{pool}/servers/{quote(name, safe='')}")

    def settle(self, state: str, pool: str, name: str) -> None:
        """Wait until a server is in this state."""
        wait_until(lambda: self.server(pool, name)["state"] == state)


@contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    """Three pools, with servers that are up, down, ejected and draining."""
    with ExitStack() as left:
        upstream = Upstream()
        left.callback(upstream.close)
        good = int(upstream.option.rpartition(":")[2])
        # A server whose answer to a check is long, and wrong.
        bad = left.enter_context(socket.create_server(("127.0.0.1", 0)))
        config = directory / "evproxy.toml"
        config.write_text(CONFIG.format(good=good, bad=bad.getsockname()[1], escaped=ESCAPED))
        running = left.enter_context(Running("evproxy", f"--config={config}", patience=300.0))
        made = Scene(running, upstream)
        client, _ = bad.accept()
        with client:
            client.sendall(f"554 {LONG}\r\n".encode())
        made.settle("down", "api", f"127.0.0.1:{bad.getsockname()[1]}")
        # So many sessions that each server has been tried.
        for _ in range(2):
            upstream.connect(made.ports[0])
        made.settle("ejected", "web", "127.0.0.1:1")
        for _ in range(20):
            upstream.connect(made.ports[1])
        made.settle("ejected", "odd", f"unix:/tmp/{ESCAPED}")
        made.post(f"/pools/web/servers/127.0.0.2:{good}/drain")
        yield made
