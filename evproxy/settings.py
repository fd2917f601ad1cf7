"""
The one frozen settings value that the command line, the configuration file and the
library all end in.  Values, their defaults and their bounds; reading a file is `evproxy.config`.

Times are seconds, sizes are bytes, everywhere.  A number that is out of bounds, or is none,
raises `SettingsError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, frozen

from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer

YEAR = 31536000
"""The longest time that can be set, in seconds: far below what an event loop's timer can hold."""
MILLISECOND = 0.001
MOST_SESSIONS = 1_000_000_000
MOST_IN_A_ROW = 1000
HIGHEST_PORT = 65535

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
DEFAULT_BACKLOG = 4096
"""The accept queue asked of the kernel, which caps it at ``net.core.somaxconn``."""
RELAYS = ("auto", "stream", "socket")
"""``auto``: the socket relay where it can be, else the stream relay.  ``stream``: always the
stream relay.  ``socket``: as ``auto``, but refuse to start where there is no socket relay."""

Validator = Callable[[Any, "Attribute[Any]", Any], None]
"""What attrs calls with a value that is to be set; raises `SettingsError`."""


def _refuse(setting: str, expected: str, value: object) -> None:
    raise SettingsError(f"{setting}: expected {expected}, got {value!r}")


def _seconds(least: float, called: str = "{}") -> Validator:
    """A time; the name of the setting is put into `called`."""

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        # Neither true nor nan is a time.
        if type(value) not in (int, float) or not least <= value <= YEAR:
            expected = f"a number of seconds from {least:g} to {YEAR}"
            _refuse(called.format(attribute.name), expected, value)

    return check


def _whole(least: int, most: int, called: str = "{}") -> Validator:
    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            expected = f"a whole number from {least} to {most}"
            _refuse(called.format(attribute.name), expected, value)

    return check


def _one_of(*choices: str) -> Validator:
    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if value not in choices:
            _refuse(attribute.name, f"one of {', '.join(choices)}", value)

    return check


_TIMEOUT = "{}_timeout"
"""What a setting of `Timeouts` is called where it is an argument; those below, in the file."""
_CHECK = "health_check.{}"
_EJECTION = "ejection.{}"
_KEEPALIVE = "keepalive.{}"


@frozen
class Timeouts:
    """
    `idle`: a session with no byte moved either way for this long is reset.
    `half_close`: the same once one side has ended its stream.
    `drain`: what sessions have left when the service stops.
    `idle` of zero means never, `drain` of zero resets at once; the others are more than zero.
    """

    idle: float = field(default=3600.0, validator=_seconds(0, _TIMEOUT))
    half_close: float = field(default=30.0, validator=_seconds(MILLISECOND, _TIMEOUT))
    drain: float = field(default=30.0, validator=_seconds(0, _TIMEOUT))


@frozen
class Keepalive:
    """TCP keepalive: the first probe after `idle` seconds, `probes` of them `interval` apart."""

    idle: int = field(default=60, validator=_whole(1, 32767, _KEEPALIVE))
    interval: int = field(default=10, validator=_whole(1, 32767, _KEEPALIVE))
    probes: int = field(default=6, validator=_whole(1, 127, _KEEPALIVE))


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
    interval: float = field(default=2.0, validator=_seconds(MILLISECOND, _CHECK))
    fast_interval: float = field(default=0.0, validator=_seconds(0, _CHECK))
    timeout: float = 1.0
    rise: int = field(default=2, validator=_whole(1, MOST_IN_A_ROW, _CHECK))
    fall: int = field(default=3, validator=_whole(1, MOST_IN_A_ROW, _CHECK))
    port: int = field(default=0, validator=_whole(0, HIGHEST_PORT, _CHECK))
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
    few the servers; with 0 none ever is, and the last that gets sessions never is.
    """

    failures: int = field(default=3, validator=_whole(1, MOST_IN_A_ROW, _EJECTION))
    base_time: float = field(default=10.0, validator=_seconds(MILLISECOND, _EJECTION))
    max_time: float = field(default=300.0, validator=_seconds(MILLISECOND, _EJECTION))
    max_percent: int = field(default=50, validator=_whole(0, 100, _EJECTION))


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
    connect_timeout: float = field(default=5.0, validator=_seconds(MILLISECOND))
    connect_attempts: int = field(default=3, validator=_whole(1, MOST_IN_A_ROW))
    queue_timeout: float = field(default=5.0, validator=_seconds(0))
    queue_size: int = field(default=1024, validator=_whole(0, MOST_SESSIONS))
    slow_start: float = field(default=0.0, validator=_seconds(0))
    on_down: str = field(default="keep", validator=_one_of("keep", "reset"))
    all_down: str = field(default="refuse", validator=_one_of("refuse", "try"))
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
    max_sessions: int = field(default=0, validator=_whole(0, MOST_SESSIONS))
    relay: str = field(default="auto", validator=_one_of(*RELAYS))
    access_log: bool = True
