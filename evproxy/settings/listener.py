"""
The settings of a listener.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.config.declare import setting
from evproxy.config.descriptions import ServerDescription
from evproxy.config.rules import (
    MOST_SESSIONS,
    Choice,
    FilePath,
    Flag,
    Judged,
    Many,
    Matching,
    Number,
    Text,
    Whole,
)
from evproxy.config.tables import Table
from evproxy.policy.networks import network_fault
from evproxy.settings.fault import FAULTS, SEED, SEED_MEANING, FaultSettings
from evproxy.settings.pool import POOL_NAME
from evproxy.settings.record import FORMATS, MAX_BYTES, MAX_FILES, MOST_BYTES, MOST_FILES
from evproxy.settings.route import RouteSettings
from evproxy.settings.tls import ListenerTLS

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
DEFAULT_BACKLOG = 4096
"""The length of the accept queue; the kernel caps it at ``net.core.somaxconn``."""
PERMISSIONS = ("unix_mode", "unix_user", "unix_group")
"""The settings of a UNIX listener that say who may connect to its path."""
_OWNER = r"[^\s:\x00]*"
MODE = Matching('an octal file mode, such as "660"', r"(?:0?[0-7]{3})?")
USER = Matching("the name or the number of a user", _OWNER)
GROUP = Matching("the name or the number of a group", _OWNER)
MOST_BYTES_PER_SECOND = 10**12
"""The highest rate that a setting may have."""
UNIX_CLIENTS = "unix"
"""In a list of networks, the clients of a UNIX socket, which have no IP address."""
IP_NETWORK = Judged('an IP address or a network, such as "10.0.0.0/8"', network_fault)


def _proxies_fault(text: str) -> str | None:
    return None if text == UNIX_CLIENTS else network_fault(text)


NETWORK = Judged('an IP address or a network, such as "10.0.0.0/8"', _proxies_fault)


@frozen
class ListenerSettings:
    """One listener: where clients connect, and the pool that gets their sessions."""

    listen: str = setting(
        ServerDescription(),
        "Where clients connect: a Twisted server endpoint description (`tcp:…`, `unix:…`, "
        "`systemd:…`, `ssl:…`, any plugin's).",
        default=DEFAULT_LISTEN,
        # The code that makes the endpoint gives a better message.
        checked=False,
    )
    pool: str = setting(
        Text(),
        "The pool that gets its sessions, or those that no route matches. Required if there is "
        "more than one pool.",
        default="default",
        default_shown="the only pool",
    )
    name: str = setting(
        Matching(POOL_NAME.expected, r"[\w.-]*"), "Its name in the log.", default=""
    )
    routes: tuple[RouteSettings, ...] = setting(
        Many("an array of tables", Table(RouteSettings)),
        "Which sessions go to other pools: [one table](#routes) for each route. The first route "
        "that matches counts.",
        default=(),
    )
    route: str = setting(
        Matching('"MODULE:FUNCTION"', r"(?:[A-Za-z_][\w.]*:[A-Za-z_]\w*)?"),
        "A [function in Python](routing.md#in-python) that chooses the pool, in place of `routes`.",
        default="",
    )
    preread: str = setting(
        Choice(("", "postgres")),
        "The protocol whose clients begin in the clear and then ask for TLS: evproxy "
        "[answers](routing.md#postgresql) PostgreSQL clients itself. Empty: none.",
        default="",
    )
    accept_proxy_protocol_from: tuple[str, ...] = setting(
        Many("an array of networks", NETWORK),
        "The networks of proxies that must send a [PROXY header](proxy-protocol.md): evproxy "
        "takes the client's address from it. It looks for no header from anybody else. `unix`: "
        "the clients of a UNIX socket.",
        default=(),
    )
    inside_tls: bool = setting(
        Flag(),
        "Whether the PROXY header comes inside `tls`, after the handshake, and not before TLS.",
        default=False,
    )
    tls: ListenerTLS | None = setting(
        Table(ListenerTLS),
        "[TLS](#tls-of-a-listener) that evproxy ends: the servers get what is inside. Not "
        "together with an endpoint that has TLS itself.",
        default=None,
    )
    allow: tuple[str, ...] = setting(
        Many("an array of networks", IP_NETWORK),
        "The networks whose clients may connect. Empty, and no `allow_files`: everyone. Clients of "
        "UNIX sockets may always connect.",
        default=(),
    )
    deny: tuple[str, ...] = setting(
        Many("an array of networks", IP_NETWORK),
        "The networks whose clients may not connect, whatever `allow` says.",
        default=(),
    )
    allow_files: tuple[str, ...] = setting(
        Many("an array of paths", FilePath("a path", ".+")),
        "Files with more networks to allow: one in each line, `#` begins a comment. evproxy reads "
        "a file again within 5 s after it changes.",
        default=(),
    )
    deny_files: tuple[str, ...] = setting(
        Many("an array of paths", FilePath("a path", ".+")),
        "The same for networks to deny.",
        default=(),
    )
    max_sessions: int = setting(
        Whole(0, MOST_SESSIONS),
        "The most sessions of this listener at once; evproxy resets clients beyond that. 0: only "
        "the bound on all sessions counts, at which clients wait.",
        default=0,
    )
    max_sessions_per_peer: int = setting(
        Whole(0, MOST_SESSIONS),
        "The most sessions of one client at once; an IPv6 client is a /64. 0: no limit.",
        default=0,
    )
    new_sessions_per_second: float = setting(
        Number(0, MOST_SESSIONS),
        "How many sessions may start in a second; as many may come at once. evproxy resets "
        "clients beyond that. 0: no limit.",
        default=0.0,
    )
    new_sessions_per_second_per_peer: float = setting(
        Number(0, MOST_SESSIONS),
        "The same for one client; an IPv6 client is a /64.",
        default=0.0,
    )
    bytes_per_second: int = setting(
        Whole(0, MOST_BYTES_PER_SECOND),
        "How many bytes the sessions of this listener may move in a second, in each direction. 0: "
        "no limit.",
        default=0,
    )
    bytes_per_second_per_peer: int = setting(
        Whole(0, MOST_BYTES_PER_SECOND),
        "The same for all sessions of one client; an IPv6 client is a /64.",
        default=0,
    )
    bytes_per_second_per_session: int = setting(
        Whole(0, MOST_BYTES_PER_SECOND), "The same for each session.", default=0
    )
    filters: tuple[str, ...] = setting(
        Many("an array of names", Matching('"MODULE:NAME"', r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")),
        "[Filters in Python](faults.md#filters-in-python): each a function or a class that makes "
        "the filter of a session.",
        default=(),
    )
    record: str = setting(
        FilePath("a path", r".*"),
        "The directory to which each session is [recorded](recording.md), in a file of its own. "
        "Empty: nothing is recorded.",
        default="",
    )
    record_format: str = setting(
        Choice(FORMATS),
        "The [format](recording.md#the-formats) of the recordings.",
        default="json",
    )
    record_max_files: int = setting(
        Whole(1, MOST_FILES),
        "How many recordings the directory may have: further sessions are not recorded. evproxy "
        "deletes none.",
        default=MAX_FILES,
    )
    record_max_bytes: int = setting(
        Whole(1, MOST_BYTES),
        "How many bytes all recordings in the directory may have: recordings stop there, and "
        "sessions go on.",
        default=MAX_BYTES,
    )
    faults: tuple[FaultSettings, ...] = setting(
        FAULTS,
        "[Faults](#faults) that are injected into its sessions, for tests: one table for each.",
        default=(),
    )
    faults_seed: int = setting(SEED, SEED_MEANING, default=0)
    unix_mode: str = setting(
        MODE,
        "The file mode of a UNIX listener's path: a client needs the right to write to it. Not "
        "together with a `mode` in `listen`. Empty: the mode in `listen`, by default 666.",
        default="",
        option="unix-mode",
    )
    unix_user: str = setting(
        USER,
        "The owner of a UNIX listener's path. Only root can choose another user. Empty: the user "
        "that starts evproxy.",
        default="",
        option="unix-user",
    )
    unix_group: str = setting(
        GROUP,
        "The group of a UNIX listener's path. Without root, the user must be in it. Empty: the "
        "group of the process, or that of the directory if the directory is setgid.",
        default="",
        option="unix-group",
    )
