"""
Configuration files to test with.
"""

from __future__ import annotations

from evproxy.config.document import ConfigErrors, parse
from evproxy.config.reading import Fault, Surroundings

LISTENERS = "[[listeners]]\n"
POOLS = '[pools.web]\nupstreams = ["a:1"]\n'
SOUND = LISTENERS + POOLS

EVERYTHING = """
max_sessions = 1000
relay = "stream"

[[listeners]]
name = "front"
listen = "unix:front.sock:mode=600"
pool = "web"
accept_proxy_protocol_from = ["10.0.0.0/8", "unix"]

[[listeners]]
pool = "found"

[pools.web]
balance = "least-time"
upstreams = [
  "tcp:10.0.0.1:80",
  {endpoint = "[2001:db8::1]:80", weight = 0, backup = true, max_sessions = 5, priority = 2},
  {endpoint = "unix:app.sock", tags = ["a:b"]},
]
connect_timeout = 1
connect_attempts = 4
queue_timeout = 0
queue_size = 0
slow_start = 30
on_down = "reset"
send_proxy_protocol = 2
all_down = "try"
health_check = {kind = "tls", verify = true, server_name = "web", ca = "ca.pem", port = 443}
ejection = {}

[pools.found]
discover = {kind = "file", path = "servers.json"}

[timeouts]
idle = 0
half_close = 1.5
handshake = 5
drain = 0
"""


def problems(
    text: str, endpoint_fault: Fault | None = None, listen_fault: Fault | None = None
) -> list[str]:
    """Return the problems of `text`; none if it is good."""
    try:
        parse(text, Surroundings("", endpoint_fault, listen_fault))
    except ConfigErrors as errors:
        return list(errors.problems)
    return []
