"""
Whose fault it is that a connection could not be made: the server's, or evproxy's own.

Pure: an error in, a `Shortage` out, or ``None`` where the server is to blame.

Ours is what the kernel says before anything is sent: no descriptor, memory or local port,
no permission, no route (ENETUNREACH).  The server's is what the network or the server
answers, and EHOSTUNREACH, which is also what a neighbour that does not answer gives.  A
UNIX socket that may not be opened is the server's: its path has the wrong mode, and the
servers at other paths are not concerned.
"""

from __future__ import annotations

import errno
import re

from evproxy.config.addresses import is_address
from evproxy.errors import LocalShortage, Shortage

DESCRIPTORS = Shortage(
    "this process has no free descriptor",
    "raise its limit on open files (ulimit -n, LimitNOFILE=)",
    everywhere=True,
)
_MEMORY = Shortage(
    "the kernel has no memory for sockets",
    "raise net.ipv4.tcp_mem, or give the machine more memory",
    everywhere=True,
)
_EVERYWHERE = {
    errno.EMFILE: DESCRIPTORS,
    errno.ENFILE: Shortage(
        "this machine has no free descriptor", "raise fs.file-max", everywhere=True
    ),
    errno.ENOBUFS: _MEMORY,
    errno.ENOMEM: _MEMORY,
    errno.ENOSPC: Shortage(
        "the kernel watches no more sockets", "raise fs.epoll.max_user_watches", everywhere=True
    ),
}

NO_PORT = {errno.EADDRNOTAVAIL, errno.EADDRINUSE}
"""The errors that say that no local port is free; the second where a source address is bound."""

ELSEWHERE_TOO = {*_EVERYWHERE, *NO_PORT}
"""The errors that are a shortage whatever it is that is connected, or opened."""

_NOT_PERMITTED = {errno.EACCES, errno.EPERM}
_NO_ROUTE = {errno.ENETUNREACH, errno.ENETDOWN, errno.EAFNOSUPPORT}

_RESOLVING = re.compile(r"(?:tls|ssl|tcp):(?:host=)?(?P<host>\[[^\]]*\]|(?:[^:\\]|\\.)+)")


def shortage_of(number: int | None, endpoint: str = "the server") -> Shortage | None:
    """
    What the error `number` of connecting to `endpoint` says that evproxy lacks.

    :param number: an errno.
    :param endpoint: an upstream server, as `UpstreamServer.endpoint` has it.
    """
    if number is None:
        return None
    if number in _EVERYWHERE:
        return _EVERYWHERE[number]
    if number in NO_PORT:
        return Shortage(
            f"no free local port to {endpoint}",
            "raise net.ipv4.ip_local_port_range, or give more addresses in source",
        )
    if number in _NOT_PERMITTED and not endpoint.startswith("unix:"):
        return Shortage(
            f"this machine does not permit connections to {endpoint}",
            "see its routes (prohibit), its firewall and its security policy",
        )
    if number in _NO_ROUTE:
        return Shortage(
            f"this machine has no route to {endpoint}", "see its addresses and its routes"
        )
    return None


def shortage_in(error: BaseException | None, endpoint: str = "the server") -> Shortage | None:
    """
    The same for an exception: one of the operating system's, or of Twisted's.

    A Twisted endpoint that resolves a name itself fails with the error of only one of the
    addresses.  That there is no route to that one, as to an IPv6 address on a machine that
    has none, says nothing of the others: the server is blamed.
    """
    if isinstance(error, LocalShortage):
        return error.shortage
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if not isinstance(number, int) or (number in _NO_ROUTE and _resolves(endpoint)):
        return None
    return shortage_of(number, endpoint)


def not_local(source: str) -> Shortage:
    """The address `source`, that connections are to be made from, is not one of the machine's."""
    return Shortage(
        f"source {source} is not an address of this machine", "add it there, or correct source"
    )


def no_source(endpoint: str) -> Shortage:
    """No address of `source` is of the family that `endpoint` needs."""
    return Shortage(f"source has no address of the family of {endpoint}", "add one to source")


def _resolves(endpoint: str) -> bool:
    """Whether the endpoint may try several addresses, of which it tells one."""
    found = _RESOLVING.match(endpoint)
    return found is not None and not is_address(re.sub(r"[\\\[\]]", "", found["host"]))
