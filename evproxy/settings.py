"""
The one frozen settings value that the command line, the configuration file and the
library all end in.  Values and their defaults only; reading a file is `evproxy.config`.

Times are seconds, sizes are bytes, everywhere.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.model import UpstreamServer

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
DEFAULT_BACKLOG = 4096
"""The accept queue asked of the kernel, which caps it at ``net.core.somaxconn``."""
RELAYS = ("auto", "stream", "socket")
"""``auto``: the socket relay where it can be, else the stream relay.  ``stream``: always the
stream relay.  ``socket``: as ``auto``, but refuse to start where there is no socket relay."""


@frozen
class Timeouts:
    """
    `idle`: a session with no byte moved either way for this long is reset.
    `half_close`: the same once one side has ended its stream.
    `drain`: what sessions have left when the service stops.
    `idle` of zero means never, `drain` of zero resets at once; the others are more than zero.
    """

    idle: float = 3600.0
    half_close: float = 30.0
    drain: float = 30.0


@frozen
class Keepalive:
    """TCP keepalive: the first probe after `idle` seconds, `probes` of them `interval` apart."""

    idle: int = 60
    interval: int = 10
    probes: int = 6


@frozen
class HealthCheck:
    """
    An active check of each server of a pool.

    `kind`: ``tcp`` (connect), ``tls`` (handshake; `verify` the certificate for
    `server_name`), ``http`` (`method` `path` with `host`; `expect_status`,
    `expect_text`), ``send-expect`` (`send`, then `expect` bytes or `expect_pattern`),
    or the ready-made ``redis``, ``smtp``, ``postgresql``.
    `interval`, and `fast_interval` while a server is changing state (0: a quarter of
    `interval`), `timeout`: seconds.  `rise` good results make a server up, `fall` bad
    ones down.  `port`: check another port (0: the server's own).
    """

    kind: str = "tcp"
    interval: float = 2.0
    fast_interval: float = 0.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    port: int = 0
    method: str = "GET"
    path: str = "/"
    host: str = ""
    expect_status: tuple[int, ...] = (200,)
    expect_text: str = ""
    send: str = ""
    expect: str = ""
    expect_pattern: str = ""
    verify: bool = False
    server_name: str = ""
    ca: str = ""


@frozen
class Ejection:
    """
    Passive health: `failures` in a row eject a server for `base_time` seconds, doubled
    at each repetition up to `max_time`.

    At most `max_percent` of a pool are ejected at once, but one always may be, however
    few the servers; with 0 none ever is, and the only server of a pool never is.
    """

    failures: int = 3
    base_time: float = 10.0
    max_time: float = 300.0
    max_percent: int = 50


@frozen
class Discover:
    """
    Where the servers of a pool come from.

    `kind`: ``dns`` (`name` and `port`), ``dns-srv`` (`name`), ``file`` (`path`),
    ``etcd`` (`endpoints` and `prefix`).  `interval`: the upper bound in seconds
    between two looks; after so long all keys of etcd are read again.  `min_interval`,
    at most `interval`: the lower one.  A DNS answer's TTL counts down to it, a file is
    looked at so often, and a look-up that failed is tried again after about so long at
    first.  `nameservers`: ``ADDRESS[:PORT]`` to ask instead of the system's.
    """

    kind: str
    name: str = ""
    port: int = 0
    path: str = ""
    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    prefix: str = ""
    interval: float = 30.0
    min_interval: float = 1.0
    nameservers: tuple[str, ...] = ()


@frozen
class PoolSettings:
    """
    A named group of upstream servers and how one is picked.

    `balance`: ``round-robin``, ``least-sessions``, ``random-two``, ``source-hash`` or
    ``least-time``.  `connect_timeout`: seconds for one server.  `connect_attempts`:
    distinct servers tried for one session.  `queue_timeout`: seconds to wait when
    every server is at its `max_sessions`; `queue_size`: how many sessions may wait.
    `slow_start`: seconds in which a server that came up grows to its full weight.
    `on_down`: ``keep`` or ``reset`` the sessions of a server that goes down.
    `all_down`: ``refuse`` new sessions, or ``try`` the servers anyway, when none is up.
    """

    name: str = "default"
    upstreams: tuple[UpstreamServer, ...] = ()
    balance: str = "round-robin"
    connect_timeout: float = 5.0
    connect_attempts: int = 3
    queue_timeout: float = 5.0
    queue_size: int = 1024
    slow_start: float = 0.0
    on_down: str = "keep"
    all_down: str = "refuse"
    health_check: HealthCheck | None = None
    ejection: Ejection | None = None
    discover: Discover | None = None


@frozen
class ListenerSettings:
    """One listener: a Twisted server endpoint description and the pool its sessions go to."""

    listen: str = DEFAULT_LISTEN
    pool: str = "default"
    name: str = ""


@frozen
class Settings:
    """
    Everything a `evproxy.ProxyService` is made of.

    `max_sessions`: the most sessions at once, 0 to derive it from the open-file limit.
    `relay`: ``auto``, ``stream`` or ``socket``.  `access_log`: log each session's end.
    """

    listeners: tuple[ListenerSettings, ...] = (ListenerSettings(),)
    pools: tuple[PoolSettings, ...] = ()
    timeouts: Timeouts = Timeouts()
    keepalive: Keepalive = Keepalive()
    max_sessions: int = 0
    relay: str = "auto"
    access_log: bool = True
