"""
The settings: one frozen value, made from the command line, the configuration file or arguments.

This module declares each setting once: the values it accepts, its default, its meaning, and where
a user can give it.  All other code that knows settings reads these declarations; see
`evproxy.config.declare`.

Times are in seconds and sizes in bytes everywhere.  A value that its setting does not accept
raises `SettingsError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import ClassVar

from attrs import frozen

from evproxy.config import addresses
from evproxy.config.declare import setting
from evproxy.config.descriptions import ServerDescription
from evproxy.config.rules import (
    HIGHEST_PORT,
    MOST_SESSIONS,
    Choice,
    FilePath,
    Flag,
    Judged,
    Many,
    Matching,
    Number,
    OneOrMany,
    Seconds,
    Text,
    Whole,
    WordOrPath,
    pattern_fault,
)
from evproxy.config.tables import NamedTables, Table, TableOrKey
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.policy.balance.by_name import NAMES
from evproxy.policy.networks import network_fault
from evproxy.policy.sources import MOST as MOST_SOURCES
from evproxy.policy.sources import Sources, source_fault

MILLISECOND = 0.001
_OWNER = r"[^\s:\x00]*"
MOST_IN_A_ROW = 1000
BODY_LIMIT = 64 * 1024
"""The bytes of a body in which an HTTP check looks for the text that it expects."""
ANSWER_LIMIT = 16 * 1024
"""The most bytes that a check reads of one answer; HAProxy's ``tune.bufsize`` is the same."""

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
DEFAULT_BACKLOG = 4096
"""The length of the accept queue; the kernel caps it at ``net.core.somaxconn``."""
RELAYS = ("auto", "stream", "socket")
"""``auto``: the socket relay where possible, else the stream relay.  ``stream``: always the
stream relay.  ``socket``: like ``auto``, but evproxy does not start without epoll."""

CHECK_KINDS = ("tcp", "tls", "http", "send-expect", "redis", "smtp", "postgresql")
DISCOVERY_KINDS = ("dns", "dns-srv", "file", "etcd")

SERVER = TableOrKey(UpstreamServer, "endpoint")
"""One upstream server in a file: a table, or only its endpoint."""

POOL_NAME = Matching('a name of letters, digits, "_", "-" and "."', r"[\w.-]+")
"""The names that a file may give a pool: each fits a log line and a metric's label."""

_ESCAPED = Matching(
    r"a string, with \r, \n, \t, \0, \\ and \xHH as its only backslashes",
    r"(?:[^\\]|\\[rnt0\\]|\\x[0-9a-fA-F]{2})*",
)

PERMISSIONS = ("unix_mode", "unix_user", "unix_group")
"""The settings of a UNIX listener that say who may connect to its path."""


def refuse_beside_settings(
    what: type, arguments: Mapping[str, object], allowed: Sequence[str]
) -> None:
    """
    Refuse `arguments` of `what` that its argument ``settings`` has already.

    :raises SettingsError: if one that is not `allowed` differs from its default.
    """
    for name, parameter in signature(what).parameters.items():
        free = name in (*allowed, "settings") or parameter.default is Parameter.empty
        if not free and arguments[name] != parameter.default:
            raise SettingsError(f"{name}: cannot be given together with settings, which has it")


def in_a_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses that a program gave: one string, or a sequence of strings."""
    return (value,) if isinstance(value, str) else tuple(value)


def too_many_sources(given: Sequence[str]) -> str | None:
    """What is wrong with more than `MOST_SOURCES` addresses; ``None`` if `given` are fewer."""
    many = Sources(given).count > MOST_SOURCES
    return f"more than {MOST_SOURCES} addresses" if many else None


MOST_BYTES_PER_SECOND = 10**12
"""The highest rate that a setting may have."""

UNIX_CLIENTS = "unix"
"""In a list of networks, the clients of a UNIX socket, which have no IP address."""


IP_NETWORK = Judged('an IP address or a network, such as "10.0.0.0/8"', network_fault)


def _proxies_fault(text: str) -> str | None:
    return None if text == UNIX_CLIENTS else network_fault(text)


NETWORK = Judged('an IP address or a network, such as "10.0.0.0/8"', _proxies_fault)


@frozen
class Timeouts:
    """When evproxy resets sessions: idle ones, half-closed ones, and those left after a drain."""

    idle: float = setting(
        Seconds(0),
        "evproxy resets a session in which no byte moves either way for this long. 0: never.",
        default=3600.0,
        called=("idle_timeout",),
        option="idle-timeout",
    )
    half_close: float = setting(
        Seconds(MILLISECOND),
        "The same timeout for a session in which one side has ended its stream.",
        default=30.0,
        called=("half_close_timeout",),
        option="half-close-timeout",
    )
    handshake: float = setting(
        Seconds(MILLISECOND),
        "How long a client may take, from its connect on, to send a PROXY header, to shake hands "
        "for TLS, and to send whatever its route depends on, and how long a router may take to "
        "choose a pool. Then evproxy "
        "resets the client.",
        default=10.0,
        called=("handshake_timeout",),
    )
    drain: float = setting(
        Seconds(0),
        "When evproxy stops, how long sessions may go on before it resets them. 0: no time.",
        default=30.0,
        called=("drain_timeout",),
        option="drain-timeout",
    )


@frozen
class Keepalive:
    """TCP keepalive on both sides of a session."""

    BELOW: ClassVar[str] = "keepalive"

    idle: int = setting(
        Whole(1, 32767),
        "Seconds without data until the kernel probes a TCP connection, on both sides. With 20 or "
        "more, evproxy sets the keepalive times of a server's socket up to 10 seconds after the "
        "session began; the kernel counts the silence before that too.",
        default=60,
        option="keepalive-idle",
        in_file=False,
    )
    interval: int = setting(
        Whole(1, 32767),
        "Seconds between two keepalive probes.",
        default=10,
        option="keepalive-interval",
        in_file=False,
    )
    probes: int = setting(
        Whole(1, 127),
        "After this many probes without an answer, the kernel ends a connection.",
        default=6,
        option="keepalive-probes",
        in_file=False,
    )


@frozen
class AccessLogSettings:
    """Where the line for the end of each session goes, and what it looks like."""

    BELOW: ClassVar[str] = "access_log"

    path: str = setting(
        WordOrPath.of("auto", "off", "-", "syslog:", "twisted:"),
        "Where a line for the end of each session goes: nowhere; standard output; the system's "
        "log; the events of `twisted.logger`; or the file of that path. `auto`: standard output "
        "under `twistd -n`, else `twisted:`.",
        default="auto",
        option="access-log",
    )
    format: str = setting(
        Choice(("text", "json")),
        "What the line looks like: words, or a JSON object. `twisted:` has events of its own.",
        default="text",
        option="access-log-format",
    )


@frozen
class HealthCheck:
    """An active check of each server of a pool."""

    BELOW: ClassVar[str] = "health_check"

    kind: str = setting(
        Choice(CHECK_KINDS),
        "What a check does: connect; make a TLS handshake; send an HTTP request; send bytes and "
        "compare the answer; or hold the built-in dialogue for one of three kinds of servers.",
        default="tcp",
    )
    interval: float = setting(
        Seconds(MILLISECOND),
        "The time from one check of a server to the next.",
        default=2.0,
    )
    fast_interval: float = setting(
        Seconds(0),
        "The interval while a server changes its state; at most `interval`. 0: a quarter of "
        "`interval`.",
        default=0.0,
    )
    timeout: float = setting(
        Seconds(MILLISECOND),
        "The timeout of one whole check. It starts when the address is known: the first look-up "
        "of a host name may take 5 s more.",
        default=1.0,
    )
    rise: int = setting(
        Whole(1, MOST_IN_A_ROW),
        "After this many passed checks in a row, a server is up.",
        default=2,
    )
    fall: int = setting(
        Whole(1, MOST_IN_A_ROW),
        "After this many failed checks in a row, a server is down.",
        default=3,
    )
    port: int = setting(
        Whole(0, HIGHEST_PORT),
        "The port to check; every server must then be a host and a port. 0: the port that "
        "sessions connect to.",
        default=0,
    )
    method: str = setting(
        Matching("an HTTP method", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
        "The method of the request.",
        default="GET",
        kinds=("http",),
    )
    path: str = setting(
        Matching("a path that starts with /, in ASCII, without spaces and #", r"/[!\"$-~]*"),
        "The path of the request, with a query if you need one.",
        default="/",
        kinds=("http",),
    )
    host: str = setting(
        Matching("HOST or HOST:PORT, in ASCII", r"(?!.*[/?#@]|:)[!-~]*"),
        "The `Host` header. Empty: the server's host and port, without the zone of an IPv6 "
        "address.",
        default="",
        kinds=("http",),
    )
    expect_status: tuple[int, ...] = setting(
        Many("an array of whole numbers from 200 to 599", Whole(200, 599)),
        "The statuses that pass. Empty: 200 to 399.",
        default=(200,),
        kinds=("http",),
    )
    expect_text: str = setting(
        Text(),
        "The text that the first 64 KiB of the body must contain. Empty: any body passes.",
        default="",
        kinds=("http",),
    )
    send: str = setting(
        _ESCAPED,
        "What the check sends, in UTF-8. In TOML, a string in single quotes keeps its backslashes: "
        r"`'PING\r\n'`. Empty: nothing, for servers that speak first.",
        default="",
        kinds=("send-expect",),
    )
    expect: str = setting(
        _ESCAPED,
        "The text that the answer must contain. Empty, and no `expect_pattern`: the check does "
        "not wait for an answer.",
        default="",
        kinds=("send-expect",),
    )
    expect_pattern: str = setting(
        Judged("a regular expression", pattern_fault),
        "A pattern that must match in the answer, in [Python's syntax]"
        "(https://docs.python.org/3/library/re.html), over bytes. Not together with `expect`.",
        default="",
        kinds=("send-expect",),
    )
    verify: bool = setting(
        Flag(),
        "Whether the check verifies the server's certificate.",
        default=False,
        kinds=("tls",),
    )
    server_name: str = setting(
        Judged("a host name or an IP address", addresses.server_name_fault),
        "The name that the check sends in the handshake and that the certificate must be for. "
        "Empty: the server's host. `verify` needs one of the two.",
        default="",
        kinds=("tls",),
    )
    ca: str = setting(
        FilePath("a path", r".*"),
        "A file of PEM certificates, the only ones that `verify` then trusts. Empty: those that "
        "the system trusts.",
        default="",
        kinds=("tls",),
    )


@frozen
class Ejection:
    """Passive health: evproxy ejects a server whose sessions fail."""

    BELOW: ClassVar[str] = "ejection"

    failures: int = setting(
        Whole(1, MOST_IN_A_ROW),
        "After this many failures in a row, a server is ejected. A failure is a connect that "
        "fails, or a session that the server resets before it has sent a byte.",
        default=3,
    )
    base_time: float = setting(
        Seconds(MILLISECOND),
        "How long the first ejection lasts. Each further one lasts twice as long.",
        default=10.0,
    )
    max_time: float = setting(
        Seconds(MILLISECOND),
        "How long an ejection lasts at most; at least `base_time`.",
        default=300.0,
    )
    max_percent: int = setting(
        Whole(0, 100),
        "The largest part of a pool that is ejected at once. One server always may be ejected, "
        "unless it is the last that gets sessions. 0: no server is ejected.",
        default=50,
    )


@frozen
class Discover:
    """Where the servers of a pool come from at run time."""

    BELOW: ClassVar[str] = "discover"

    kind: str = setting(
        Choice(DISCOVERY_KINDS),
        "Where to find servers: the addresses of a host name; the SRV records of a service; a "
        "file that another program writes; the keys in etcd that begin with a prefix.",
    )
    name: str = setting(
        Judged("a domain name", addresses.domain_fault),
        "The name to look up: `web.example.org`, or `_pg._tcp.example.org`.",
        default="",
        kinds=("dns", "dns-srv"),
        required_for=("dns", "dns-srv"),
    )
    port: int = setting(
        Whole(1, HIGHEST_PORT),
        "The port of every server.",
        default=0,
        kinds=("dns",),
        required_for=("dns",),
    )
    path: str = setting(
        FilePath("a path that ends in .toml or .json", r".*[^/]\.(toml|json)"),
        "The file, in TOML or JSON: one key `upstreams` with an array as in a pool. A writer must "
        "replace the whole file. An empty array: no servers.",
        default="",
        kinds=("file",),
        required_for=("file",),
    )
    endpoints: tuple[str, ...] = setting(
        Many("an array of URLs, at least one", Judged("a URL", addresses.url_fault), 1),
        "The members of the etcd cluster, `http://` or `https://`.",
        default=("http://127.0.0.1:2379",),
        kinds=("etcd",),
    )
    prefix: str = setting(
        Matching("a string that is not empty", r".+"),
        "The prefix of the servers' keys. Each value is an entry of `upstreams`, as JSON. No key: "
        "no servers.",
        default="",
        kinds=("etcd",),
        required_for=("etcd",),
    )
    interval: float = setting(
        Seconds(MILLISECOND),
        "The longest time from one look-up to the next: after this time, evproxy asks DNS again "
        "even if the TTL is longer, and reads all keys in etcd again. For a file, it only bounds "
        "`min_interval`.",
        default=30.0,
    )
    min_interval: float = setting(
        Seconds(MILLISECOND),
        "The shortest time from one look-up to the next, even if the TTL of a DNS answer is "
        "shorter. evproxy checks a file for changes this often. After a failed look-up, or the end "
        "of a watch of etcd, evproxy retries after about this time, and later less often. At most "
        "`interval`.",
        default=1.0,
    )
    nameservers: tuple[str, ...] = setting(
        Many(
            "an array of addresses",
            Judged("ADDRESS or ADDRESS:PORT", addresses.nameserver_fault),
        ),
        "The name servers to ask, each `ADDRESS` or `ADDRESS:PORT` (`[v6]:PORT`). Empty: those of "
        "the system.",
        default=(),
        kinds=("dns", "dns-srv"),
    )


@frozen
class PoolTLS:
    """TLS that evproxy starts to the servers of a pool."""

    BELOW: ClassVar[str] = "tls"

    server_name: str = setting(
        Judged("a host name or an IP address", addresses.server_name_fault),
        "The name that evproxy asks the servers for (SNI), and that their certificates must be "
        "for. Empty: the host of each server.",
        default="",
    )
    ca: str = setting(
        FilePath("a path", r".*"),
        "A file of PEM certificates, the only authorities that are trusted. Empty: those that the "
        "system trusts.",
        default="",
    )
    certificate: str = setting(
        FilePath("a path", r".*"),
        "A PEM file with the certificate that evproxy shows to servers, its chain and its key. "
        "Empty: none.",
        default="",
    )
    alpn: tuple[str, ...] = setting(
        Many(
            "an array of protocols",
            Matching("a protocol of 1 to 255 letters in ASCII", r"[!-~]{1,255}"),
        ),
        "The protocols (ALPN) that evproxy offers. Empty: it offers none.",
        default=(),
    )
    insecure_skip_verify: bool = setting(
        Flag(),
        "Whether evproxy takes any certificate. Then it cannot tell a server from an attacker.",
        default=False,
    )


@frozen
class PoolSettings:
    """A named group of upstream servers, and how the pool picks one."""

    name: str = setting(Text(), "Its name in the log.", default="default", in_file=False)
    upstreams: tuple[UpstreamServer, ...] = setting(
        Many("an array of upstream servers", SERVER),
        "The servers: each an endpoint or [a table](#upstream-servers), and none twice.",
        default=(),
    )
    balance: str = setting(
        Choice(NAMES),
        "Which server gets a session: each in turn; the one with the fewest sessions for its "
        "weight; the better of two random ones; one that the client's address decides; the one "
        "that connects fastest.",
        default="round-robin",
        option="balance",
    )
    connect_timeout: float = setting(
        Seconds(MILLISECOND),
        "The timeout of one attempt to connect to one server.",
        default=5.0,
        option="connect-timeout",
    )
    connect_attempts: int = setting(
        Whole(1, MOST_IN_A_ROW),
        "How many distinct servers evproxy tries for one session before it resets the client.",
        default=3,
        option="connect-attempts",
    )
    send_proxy_protocol: int = setting(
        Whole(0, 2),
        "The version of the [PROXY header](proxy-protocol.md) that evproxy sends to a server "
        "first, so that the server knows the client. 0: no header.",
        default=0,
    )
    queue_timeout: float = setting(
        Seconds(0),
        "How long a session waits for a free slot while every server is at its `max_sessions`. 0: "
        "it does not wait.",
        default=5.0,
    )
    queue_size: int = setting(
        Whole(0, MOST_SESSIONS),
        "How many sessions may wait for a free slot at once. 0: none.",
        default=1024,
    )
    slow_start: float = setting(
        Seconds(0),
        "How long a server that came up takes to grow to its full weight. 0: no time.",
        default=0.0,
    )
    on_down: str = setting(
        Choice(("keep", "reset")),
        "Whether evproxy keeps or resets the sessions of a server that goes down.",
        default="keep",
    )
    all_down: str = setting(
        Choice(("refuse", "try")),
        "What happens to new sessions while no server is up: evproxy resets them, or tries the "
        "servers anyway.",
        default="refuse",
    )
    source: tuple[str, ...] = setting(
        OneOrMany(
            "an IP address, a range of them (CIDR), or an array of both",
            Judged("an IP address or a range of them (CIDR)", source_fault),
            too_many_sources,
        ),
        "The [addresses of this machine](pools.md#where-connections-come-from) that sessions and "
        "health checks connect from, in turn. Empty: the kernel chooses.",
        default=(),
        converter=in_a_tuple,
    )
    tls: PoolTLS | None = setting(
        Table(PoolTLS),
        "[TLS](#tls-of-a-pool) that evproxy starts to the servers, and health checks too.",
        default=None,
    )
    health_check: HealthCheck | None = setting(
        Table(HealthCheck), "An [active check](#health-checks) of each server.", default=None
    )
    ejection: Ejection | None = setting(
        Table(Ejection),
        "When a server is [ejected](#ejection) because its sessions fail.",
        default=None,
    )
    discover: Discover | None = setting(
        Table(Discover), "Where the pool [finds servers](#discovery) at run time.", default=None
    )


_HOST_PATTERN = Matching(
    'a name, "*" or "*.NAME"', r"\*|(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|"
)


@frozen
class RouteSettings:
    """One route of a listener: the sessions for which all of its conditions hold go to a pool."""

    pool: str = setting(Text(), "The pool that gets these sessions.")
    sni: str = setting(
        _HOST_PATTERN,
        "The name that a TLS client asks for. `*.example.org`: every name below `example.org`, "
        "however deep. `*`: any name.",
        default="",
    )
    alpn: str = setting(
        Matching("a protocol in ASCII", r"[!-~]*"),
        "A protocol that a TLS client offers, such as `h2` or `postgresql`.",
        default="",
    )
    peer: str = setting(
        Judged(
            'an IP address or a network, such as "10.0.0.0/8"',
            lambda text: network_fault(text) if text else None,
        ),
        "The network of the client.",
        default="",
    )
    listener: str = setting(Text(), "The name of the listener.", default="")
    client_cert: str = setting(
        Text(),
        "The common name in the client's verified certificate, as `sni`. Behind a PROXY header, "
        "the proxy says it.",
        default="",
    )
    http_host: str = setting(
        _HOST_PATTERN,
        "The host of the first HTTP/1 request on the connection, as `sni`.",
        default="",
    )
    postgres_user: str = setting(
        Text(), "The user in the first message of a PostgreSQL client without TLS.", default=""
    )
    postgres_database: str = setting(
        Text(), "The database in that message; by default it is the user's name.", default=""
    )


@frozen
class ListenerTLS:
    """TLS that evproxy ends at a listener."""

    BELOW: ClassVar[str] = "tls"

    certificates: tuple[str, ...] = setting(
        Many("an array of paths, at least one", FilePath("a path", r".+"), 1),
        "PEM files, each with a certificate, the chain to its authority, and its key. A client "
        "gets the certificate for the name that it asks for (SNI): a name itself comes before a "
        "wildcard. Of certificates for the same name with keys of several kinds (ECDSA, RSA), it "
        "gets one that it can verify.",
    )
    client_ca: str = setting(
        FilePath("a path", r".*"),
        "A PEM file with the authorities whose certificates clients may have.",
        default="",
    )
    client_certificate: str = setting(
        Choice(("none", "optional", "required")),
        "Whether clients are asked for a certificate, and whether they need one. It is verified "
        "in any case. Needs `client_ca`.",
        default="none",
    )
    alpn: tuple[str, ...] = setting(
        Many(
            "an array of protocols",
            Matching("a protocol of 1 to 255 letters in ASCII", r"[!-~]{1,255}"),
        ),
        "The protocols (ALPN) that the servers speak, best first. A client that offers others "
        "only is refused. Empty: none is chosen.",
        default=(),
    )
    minimum: str = setting(Choice(("1.2", "1.3")), "The lowest version of TLS.", default="1.2")
    strict_sni: bool = setting(
        Flag(),
        "Whether clients are refused that ask for no name, or for one that there is no "
        "certificate for. False: they get the first certificate.",
        default=False,
    )


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
    unix_mode: str = setting(
        Matching('an octal file mode, such as "660"', r"(?:0?[0-7]{3})?"),
        "The file mode of a UNIX listener's path: a client needs the right to write to it. Not "
        "together with a `mode` in `listen`. Empty: the mode in `listen`, by default 666.",
        default="",
        option="unix-mode",
    )
    unix_user: str = setting(
        Matching("the name or the number of a user", _OWNER),
        "The owner of a UNIX listener's path. Only root can choose another user. Empty: the user "
        "that starts evproxy.",
        default="",
        option="unix-user",
    )
    unix_group: str = setting(
        Matching("the name or the number of a group", _OWNER),
        "The group of a UNIX listener's path. Without root, the user must be in it. Empty: the "
        "group of the process, or that of the directory if the directory is setgid.",
        default="",
        option="unix-group",
    )


@frozen
class Settings:
    """All settings of one `evproxy.ProxyService`."""

    listeners: tuple[ListenerSettings, ...] = setting(
        Many("an array of tables", Table(ListenerSettings)),
        "Where clients connect: [one table](#listeners) for each listener, at least one.",
        default=(ListenerSettings(),),
        default_shown="required",
    )
    pools: tuple[PoolSettings, ...] = setting(
        NamedTables(PoolSettings, POOL_NAME),
        "Which servers get the sessions: [one table](#poolsname) for each pool, under its name, "
        "at least one.",
        default=(),
        default_shown="required",
    )
    timeouts: Timeouts = setting(
        Table(Timeouts),
        "The [timeouts](#timeouts) of sessions.",
        default=Timeouts(),
        default_shown="its defaults",
    )
    keepalive: Keepalive = Keepalive()
    max_sessions: int = setting(
        Whole(0, MOST_SESSIONS),
        "The most sessions at once, over all listeners. At the bound, evproxy stops accepting "
        "until a session ends. 0: a bound that follows from the limit on open files.",
        default=0,
        option="max-sessions",
    )
    relay: str = setting(
        Choice(RELAYS),
        "What moves the bytes. `auto`: the fast socket relay between plain sockets, the stream "
        "relay for everything else. `socket`: the same, but evproxy does not start without epoll. "
        "`stream`: the stream relay for everything.",
        default="auto",
        option="relay",
    )
    access_log: AccessLogSettings = setting(
        Table(AccessLogSettings),
        "Where the end of each session is [logged](#access_log).",
        default=AccessLogSettings(),
        default_shown="its defaults",
    )
