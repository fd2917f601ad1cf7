"""
How a pool finds its servers at run time.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from evproxy.config import addresses
from evproxy.config.declare import setting
from evproxy.config.rules import (
    HIGHEST_PORT,
    Choice,
    FilePath,
    Judged,
    Many,
    Matching,
    Seconds,
    Whole,
)
from evproxy.config.tables import TableOrKey
from evproxy.model import UpstreamServer
from evproxy.settings.timeouts import MILLISECOND

DISCOVERY_KINDS = ("dns", "dns-srv", "file", "etcd")
SERVER = TableOrKey(UpstreamServer, "endpoint")
"""One upstream server in a file: a table, or only its endpoint."""


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
