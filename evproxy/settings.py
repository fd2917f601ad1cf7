"""
The one frozen settings value that the command line, the configuration file and the library end in.

Each setting is declared here, once: what it may be, its default, its meaning, and where it can
be given.  Whatever else knows of settings reads these declarations; see `evproxy.config.declare`.

Times are seconds, sizes are bytes, everywhere.  A value that is not what its setting may be
raises `SettingsError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from evproxy.config import addresses
from evproxy.config.declare import setting
from evproxy.config.descriptions import ServerDescription
from evproxy.config.rules import (
    Choice,
    FilePath,
    Flag,
    Judged,
    Many,
    Matching,
    OneOrMany,
    Rule,
    Seconds,
    Text,
    Whole,
    WordOrPath,
    pattern_fault,
)
from evproxy.config.tables import NamedTables, Table, TableOrKey
from evproxy.model import UpstreamServer
from evproxy.policy.balance.by_name import NAMES
from evproxy.policy.sources import MOST as MOST_SOURCES
from evproxy.policy.sources import Sources, source_fault

MILLISECOND = 0.001
MOST_SESSIONS = 1_000_000_000
MOST_IN_A_ROW = 1000
HIGHEST_PORT = 65535
BODY_LIMIT = 64 * 1024
"""The text that an HTTP check expects has to be in this many first bytes of the body."""
ANSWER_LIMIT = 16 * 1024
"""The most bytes of one answer to a check that are read; HAProxy's ``tune.bufsize`` is the same."""

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
DEFAULT_BACKLOG = 4096
"""The accept queue asked of the kernel, which caps it at ``net.core.somaxconn``."""
RELAYS = ("auto", "stream", "socket")
"""``auto``: the socket relay where it can be, else the stream relay.  ``stream``: always the
stream relay.  ``socket``: as ``auto``, but refuse to start where there is no socket relay."""

CHECK_KINDS = ("tcp", "tls", "http", "send-expect", "redis", "smtp", "postgresql")
DISCOVERY_KINDS = ("dns", "dns-srv", "file", "etcd")

SERVER = TableOrKey(UpstreamServer, "endpoint")
"""What stands for one upstream server in a file."""

POOL_NAME = Matching('a name of letters, digits, "_", "-" and "."', r"[\w.-]+")
"""What a pool may be called in a file: fit for a log line and a metric's label."""

_ESCAPED = Matching(
    r"a string, with \r, \n, \t, \0, \\ and \xHH as its only backslashes",
    r"(?:[^\\]|\\[rnt0\\]|\\x[0-9a-fA-F]{2})*",
)

PERMISSIONS = ("unix_mode", "unix_user", "unix_group")
"""The settings of a UNIX listener that say who may connect to its path."""


def in_a_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    """One address, or a sequence of them, as a program may give them."""
    return (value,) if isinstance(value, str) else tuple(value)


def _too_many_sources(given: Sequence[str]) -> str | None:
    many = Sources(given).count > MOST_SOURCES
    return f"more than {MOST_SOURCES} addresses" if many else None


@frozen
class Timeouts:
    """When sessions that stand still, or are still there, are reset."""

    idle: float = setting(
        Seconds(0),
        "A session with no byte moved either way for this long is reset. 0: never.",
        default=3600.0,
        called=("idle_timeout",),
        option="idle-timeout",
    )
    half_close: float = setting(
        Seconds(MILLISECOND),
        "The same for a session in which one side has ended its stream.",
        default=30.0,
        called=("half_close_timeout",),
        option="half-close-timeout",
    )
    drain: float = setting(
        Seconds(0),
        "How long the sessions that run may go on when evproxy stops. 0: they are reset at once.",
        default=30.0,
        called=("drain_timeout",),
        option="drain-timeout",
    )


def _keepalive(name: str, most: int, default: int, meaning: str) -> Any:
    return setting(
        Whole(1, most),
        meaning,
        default=default,
        called=("keepalive", name),
        option=f"keepalive-{name}",
        in_file=False,
    )


@frozen
class Keepalive:
    """How TCP connections on which nothing comes are probed, on both sides of a session."""

    idle: int = _keepalive(
        "idle",
        32767,
        60,
        "Seconds until a TCP connection on which nothing comes is probed, on both sides. From 20 "
        "on, the times of a server's socket are set when its session has lasted 10 seconds at "
        "most; what came before counts.",
    )
    interval: int = _keepalive("interval", 32767, 10, "Seconds between two such probes.")
    probes: int = _keepalive("probes", 127, 6, "Probes without an answer that break a connection.")


def _access_log(name: str, rule: Rule, meaning: str, **more: Any) -> Any:
    return setting(rule, meaning, called=("access_log", name), **more)


@frozen
class AccessLogSettings:
    """Where the line for the end of each session goes, and what it looks like."""

    path: str = _access_log(
        "path",
        WordOrPath.of("auto", "off", "-", "syslog:", "twisted:"),
        "Where a line for the end of each session goes: nowhere; standard output; the system's "
        "log; the events of `twisted.logger`; or the file of that path. `auto`: standard output "
        "under `twistd -n`, else `twisted:`.",
        default="auto",
        option="access-log",
    )
    format: str = _access_log(
        "format",
        Choice(("text", "json")),
        "What the line looks like: words, or a JSON object. `twisted:` has events of its own.",
        default="text",
        option="access-log-format",
    )


def _check(name: str, rule: Rule, default: Any, meaning: str, kinds: tuple[str, ...] = ()) -> Any:
    """A setting of `HealthCheck`."""
    return setting(rule, meaning, default=default, called=("health_check", name), kinds=kinds)


@frozen
class HealthCheck:
    """An active check of each server of a pool."""

    kind: str = _check(
        "kind",
        Choice(CHECK_KINDS),
        "tcp",
        "What is asked: to connect; a TLS handshake; an HTTP request; bytes to be answered with "
        "bytes; or the ready-made questions for three kinds of servers.",
    )
    interval: float = _check(
        "interval", Seconds(MILLISECOND), 2.0, "From one check of a server to the next."
    )
    fast_interval: float = _check(
        "fast_interval",
        Seconds(0),
        0.0,
        "The same while a server is changing state; at most `interval`. 0: a quarter of "
        "`interval`.",
    )
    timeout: float = _check(
        "timeout",
        Seconds(MILLISECOND),
        1.0,
        "For one whole check; a check that takes longer has failed. It counts from when the "
        "address is known: the first look-up of a host name may take 5 s more.",
    )
    rise: int = _check(
        "rise", Whole(1, MOST_IN_A_ROW), 2, "So many good checks in a row make a server up."
    )
    fall: int = _check(
        "fall", Whole(1, MOST_IN_A_ROW), 3, "So many bad checks in a row make a server down."
    )
    port: int = _check(
        "port",
        Whole(0, HIGHEST_PORT),
        0,
        "The port to check; every server is a host and a port then. 0: the one that sessions go "
        "to.",
    )
    method: str = _check(
        "method",
        Matching("an HTTP method", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
        "GET",
        "The method of the request.",
        ("http",),
    )
    path: str = _check(
        "path",
        Matching("a path that starts with /, in ASCII, without spaces", r"/[!-~]*"),
        "/",
        "The path of the request, with its query if there is one.",
        ("http",),
    )
    host: str = _check(
        "host",
        Matching("HOST or HOST:PORT, in ASCII", r"(?!.*[/?#@])[!-~]*"),
        "",
        "The `Host` header. Empty: the server's own host and port, without the zone of an IPv6 "
        "address.",
        ("http",),
    )
    expect_status: tuple[int, ...] = _check(
        "expect_status",
        Many("an array of whole numbers from 200 to 599", Whole(200, 599)),
        (200,),
        "The good statuses. Empty: all from 200 to 399.",
        ("http",),
    )
    expect_text: str = _check(
        "expect_text",
        Text(),
        "",
        "What has to be in the first 64 KiB of the answer's body. Empty: nothing.",
        ("http",),
    )
    send: str = _check(
        "send",
        _ESCAPED,
        "",
        "What is sent, in UTF-8. In TOML, a string in single quotes keeps its backslashes: "
        r"`'PING\r\n'`. Empty: nothing, for servers that speak first.",
        ("send-expect",),
    )
    expect: str = _check(
        "expect",
        _ESCAPED,
        "",
        "What has to be in the answer. Empty, with no `expect_pattern` either: nothing, and no "
        "answer is waited for.",
        ("send-expect",),
    )
    expect_pattern: str = _check(
        "expect_pattern",
        Judged("a regular expression", pattern_fault),
        "",
        "What has to match in the answer, in [Python's syntax]"
        "(https://docs.python.org/3/library/re.html), over bytes. Instead of `expect`.",
        ("send-expect",),
    )
    verify: bool = _check(
        "verify", Flag(), False, "Whether the server's certificate is verified.", ("tls",)
    )
    server_name: str = _check(
        "server_name",
        Judged("a host name or an IP address", addresses.server_name_fault),
        "",
        "The name that is sent in the handshake and that the certificate has to be for. Empty: "
        "the server's host, which it has to have with `verify`.",
        ("tls",),
    )
    ca: str = _check(
        "ca",
        FilePath("a path", r".*"),
        "",
        "A file of PEM certificates to trust, and no others, with `verify`. Empty: those that "
        "the system trusts.",
        ("tls",),
    )


def _ejection(name: str, rule: Rule, default: Any, meaning: str) -> Any:
    """A setting of `Ejection`."""
    return setting(rule, meaning, default=default, called=("ejection", name))


@frozen
class Ejection:
    """Passive health: what is learned from the sessions about each server."""

    failures: int = _ejection(
        "failures",
        Whole(1, MOST_IN_A_ROW),
        3,
        "So many failures in a row eject a server: connects that fail, and sessions that the "
        "server resets before it has sent a byte.",
    )
    base_time: float = _ejection(
        "base_time",
        Seconds(MILLISECOND),
        10.0,
        "How long it is out the first time. Doubled each time it happens again.",
    )
    max_time: float = _ejection(
        "max_time",
        Seconds(MILLISECOND),
        300.0,
        "The longest that it is out; at least `base_time`.",
    )
    max_percent: int = _ejection(
        "max_percent",
        Whole(0, 100),
        50,
        "So much of a pool, at the most, is ejected at once; but one server always may be, "
        "unless it is the last that gets sessions. 0: nothing is.",
    )


def _discover(
    name: str,
    rule: Rule,
    meaning: str,
    *,
    kinds: tuple[str, ...] = (),
    **more: Any,
) -> Any:
    """A setting of `Discover`."""
    return setting(rule, meaning, called=("discover", name), kinds=kinds, **more)


@frozen
class Discover:
    """Where the servers of a pool come from at run time."""

    kind: str = _discover(
        "kind",
        Choice(DISCOVERY_KINDS),
        "Where to look: the addresses of a host; the SRV records of a service; a file that "
        "another program writes; a prefix of keys in etcd.",
    )
    name: str = _discover(
        "name",
        Judged("a domain name", addresses.domain_fault),
        "The name to look up: `web.example.org`, or `_pg._tcp.example.org`.",
        default="",
        kinds=("dns", "dns-srv"),
        required_for=("dns", "dns-srv"),
    )
    port: int = _discover(
        "port",
        Whole(1, HIGHEST_PORT),
        "The port of every server.",
        default=0,
        kinds=("dns",),
        required_for=("dns",),
    )
    path: str = _discover(
        "path",
        FilePath("a path that ends in .toml or .json", r".*[^/]\.(toml|json)"),
        "The file: in TOML or JSON, one key `upstreams` with an array as in a pool. Writers "
        "replace it whole. An empty array: no servers.",
        default="",
        kinds=("file",),
        required_for=("file",),
    )
    endpoints: tuple[str, ...] = _discover(
        "endpoints",
        Many("an array of URLs, at least one", Judged("a URL", addresses.url_fault), 1),
        "The members of the etcd cluster, `http://` or `https://`.",
        default=("http://127.0.0.1:2379",),
        kinds=("etcd",),
    )
    prefix: str = _discover(
        "prefix",
        Matching("a string that is not empty", r".+"),
        "What the keys of the servers begin with. A value is JSON, as an entry of `upstreams` is. "
        "No key: no servers.",
        default="",
        kinds=("etcd",),
        required_for=("etcd",),
    )
    interval: float = _discover(
        "interval",
        Seconds(MILLISECOND),
        "The longest time from one look to the next: after this, DNS is asked again however long "
        "the TTL is, and all keys in etcd are read again.",
        default=30.0,
    )
    min_interval: float = _discover(
        "min_interval",
        Seconds(MILLISECOND),
        "The shortest time from one look to the next, however short the TTL of a DNS answer is. "
        "A file is looked at this often. A look-up that failed, or a watch of etcd that ended, "
        "is begun again after about this time at first, and later after more. At most `interval`.",
        default=1.0,
    )
    nameservers: tuple[str, ...] = _discover(
        "nameservers",
        Many(
            "an array of addresses",
            Judged("ADDRESS or ADDRESS:PORT", addresses.nameserver_fault),
        ),
        "The name servers to ask, each `ADDRESS` or `ADDRESS:PORT` (`[v6]:PORT`). Empty: the "
        "system's.",
        default=(),
        kinds=("dns", "dns-srv"),
    )


@frozen
class PoolSettings:
    """A named group of upstream servers and how one is picked."""

    name: str = setting(Text(), "What the log calls it.", default="default", in_file=False)
    upstreams: tuple[UpstreamServer, ...] = setting(
        Many("an array of upstream servers", SERVER),
        "The servers, each an endpoint or [a table](#upstream-servers); none twice.",
        default=(),
    )
    balance: str = setting(
        Choice(NAMES),
        "Which server a session goes to: in turn; the one with the fewest sessions for its "
        "weight; the better of two picked at random; one that the client's address decides; the "
        "one that connects fastest.",
        default="round-robin",
        option="balance",
    )
    connect_timeout: float = setting(
        Seconds(MILLISECOND),
        "For one attempt to connect to one server.",
        default=5.0,
        option="connect-timeout",
    )
    connect_attempts: int = setting(
        Whole(1, MOST_IN_A_ROW),
        "How many distinct servers are tried for one session before the client is reset.",
        default=3,
        option="connect-attempts",
    )
    queue_timeout: float = setting(
        Seconds(0),
        "How long a session waits for a free slot when every server is at its `max_sessions`. 0: "
        "it does not wait.",
        default=5.0,
    )
    queue_size: int = setting(
        Whole(0, MOST_SESSIONS),
        "How many sessions may wait so at once. 0: none.",
        default=1024,
    )
    slow_start: float = setting(
        Seconds(0),
        "The time in which a server that came up grows to its full weight. 0: it has that at once.",
        default=0.0,
    )
    on_down: str = setting(
        Choice(("keep", "reset")),
        "What happens to the sessions on a server that goes down.",
        default="keep",
    )
    all_down: str = setting(
        Choice(("refuse", "try")),
        "What happens to new sessions while no server is up: they are reset, or the servers are "
        "tried anyway.",
        default="refuse",
    )
    source: tuple[str, ...] = setting(
        OneOrMany(
            "an IP address, a range of them (CIDR), or an array of both",
            Judged("an IP address or a range of them (CIDR)", source_fault),
            _too_many_sources,
        ),
        "The [addresses of this machine](pools.md#where-connections-come-from) that connections "
        "to the servers, and health checks, are made from, in turn. Empty: as the kernel chooses.",
        default=(),
        converter=in_a_tuple,
    )
    health_check: HealthCheck | None = setting(
        Table(HealthCheck), "An [active check](#health-checks) of each server.", default=None
    )
    ejection: Ejection | None = setting(
        Table(Ejection),
        "What is [learned from the sessions](#ejection) about each server.",
        default=None,
    )
    discover: Discover | None = setting(
        Table(Discover), "Where the servers are [found at run time](#discovery).", default=None
    )


@frozen
class ListenerSettings:
    """One listener: where clients connect, and the pool that their sessions go to."""

    listen: str = setting(
        ServerDescription(),
        "Where it listens: a Twisted server endpoint description (`tcp:…`, `unix:…`, "
        "`systemd:…`, `ssl:…`, any plugin's).",
        default=DEFAULT_LISTEN,
        # Whoever makes the endpoint says more of what is wrong with it.
        checked=False,
    )
    pool: str = setting(
        Text(),
        "The name of the pool that its sessions go to. Required if there is more than one pool.",
        default="default",
        default_shown="the only pool",
    )
    name: str = setting(
        Matching(POOL_NAME.expected, r"[\w.-]*"), "What the log calls it.", default=""
    )
    unix_mode: str = setting(
        Matching('an octal file mode, such as "660"', r"(?:0?[0-7]{3})?"),
        "The mode of the path of a UNIX listener: who may write to it may connect. Not together "
        "with a `mode` in `listen`. Empty: the mode in `listen`, by default 666.",
        default="",
        option="unix-mode",
    )
    unix_user: str = setting(
        Matching("the name or the number of a user", r"[^\s:\x00]*"),
        "The user that the path of a UNIX listener belongs to. Only root can give it to another "
        "one. Empty: the user that starts evproxy.",
        default="",
        option="unix-user",
    )
    unix_group: str = setting(
        Matching("the name or the number of a group", r"[^\s:\x00]*"),
        "The group that the path of a UNIX listener belongs to: for others than root, one that "
        "the user is in. Empty: the group of the process, or of the directory if that says so "
        "(setgid).",
        default="",
        option="unix-group",
    )


@frozen
class Settings:
    """Everything a `evproxy.ProxyService` is made of."""

    listeners: tuple[ListenerSettings, ...] = setting(
        Many("an array of tables", Table(ListenerSettings)),
        "Where clients connect: [one table](#listeners) for each listener, at least one.",
        default=(ListenerSettings(),),
        default_shown="required",
    )
    pools: tuple[PoolSettings, ...] = setting(
        NamedTables(PoolSettings, POOL_NAME),
        "Where their sessions go: [one table](#poolsname) for each pool, under its name, at "
        "least one.",
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
        "The most sessions at once, of all listeners together. At the bound, accepting pauses. "
        "0: derived from the limit on open files.",
        default=0,
        option="max-sessions",
    )
    relay: str = setting(
        Choice(RELAYS),
        "What moves the bytes: `stream` works between any two transports, `socket` is the fast "
        "one for plain sockets on Linux, `auto` takes the fast one wherever it can be.",
        default="auto",
        option="relay",
    )
    access_log: AccessLogSettings = setting(
        Table(AccessLogSettings),
        "Where the end of each session is [logged](#access_log).",
        default=AccessLogSettings(),
        default_shown="its defaults",
    )
