"""
When a server counts as healthy: active checks, and ejection after failures.
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
    Flag,
    Judged,
    Many,
    Matching,
    Seconds,
    Text,
    Whole,
    pattern_fault,
)
from evproxy.settings.timeouts import MILLISECOND

MOST_IN_A_ROW = 1000
BODY_LIMIT = 64 * 1024
"""The bytes of a body in which an HTTP check looks for the text that it expects."""
ANSWER_LIMIT = 16 * 1024
"""The most bytes that a check reads of one answer; HAProxy's ``tune.bufsize`` is the same."""
CHECK_KINDS = ("tcp", "tls", "http", "send-expect", "redis", "smtp", "postgresql")
_ESCAPED = Matching(
    r"a string, with \r, \n, \t, \0, \\ and \xHH as its only backslashes",
    r"(?:[^\\]|\\[rnt0\\]|\\x[0-9a-fA-F]{2})*",
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
        "(https://docs.python.org/3/library/re.html), over bytes. Not together with `expect`. All "
        "of evproxy waits while it is matched: a repetition within a repetition, as `(a+)+`, can "
        "take for ever.",
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
