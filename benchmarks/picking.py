"""What it costs to pick one of many upstream servers for a new session.

evproxy runs from a configuration file with so many servers, which are addresses of
127.0.0.0/8 on one port that one nginx listens on. So what differs between the sizes is
the proxy alone: the same upstream takes every connection, at the same port.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from .bench import Bench
from .network import free_port
from .peers.python import configuration, evproxy_from
from .results import Values
from .upstreams import http_upstream

POLICIES = ("round-robin", "random-two", "source-hash")
SIZES = (1, 10, 100, 1000)
_CONNECTIONS = 50
_FIRST_SERVER = ipaddress.IPv4Address("127.0.1.1")
_EVERYWHERE = "0.0.0.0"


def servers(size: int, port: int) -> list[str]:
    """So many different addresses of this machine, each with `port`."""
    return [f"{_FIRST_SERVER + number}:{port}" for number in range(size)]


def picking(bench: Bench) -> Values:
    """CPU per connection for each policy and size, and its growth from the least to the most.

    The sizes of one policy are measured one right after the other, each with a fresh process.
    """
    values = {}
    errors = 0.0
    with http_upstream(bench.cores.load, bench.directory, host=_EVERYWHERE) as upstream:
        for policy in POLICIES:
            for size in SIZES:
                listen = free_port()
                path = Path(bench.directory) / "picking.toml"
                pools = {listen: servers(size, upstream.port)}
                path.write_text(configuration(pools, balance=policy))
                with bench.running("evproxy", evproxy_from(path), [listen]) as proxy:
                    seen = bench.window(proxy, upstream, _CONNECTIONS, new_connection_each=True)
                values[key(policy, size)] = seen.cpu / seen.connections * 1e6
                errors += seen.errors
            values[growth(policy)] = values[key(policy, SIZES[-1])] / values[key(policy, SIZES[0])]
    return {**values, "errors": errors}


def key(policy: str, size: int) -> str:
    """What the cost of a policy with so many servers is called."""
    return f"{policy} {size}"


def growth(policy: str) -> str:
    """What the growth of a policy's cost is called."""
    return f"{policy} growth"
