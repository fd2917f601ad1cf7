"""
Classifies a failed connect: the server's fault, or a shortage on evproxy's own machine.

Pure: takes an error, returns a `Shortage`, or ``None`` if the server is at fault.

A shortage is an error that the kernel returns before it sends anything: no descriptor, memory
or local port, no permission, no route (ENETUNREACH).  The server is at fault for every error
that the network or the server answers.  EHOSTUNREACH is among these, because a server in the
same network that does not answer causes it too.  The server is also at fault if evproxy may
not open its UNIX socket: the path has the wrong mode, and other paths are not affected.
"""

from __future__ import annotations

import errno
import re

from evproxy.config.canonical import is_address
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
        "the kernel cannot watch more sockets", "raise fs.epoll.max_user_watches", everywhere=True
    ),
}

NO_PORT = {errno.EADDRNOTAVAIL, errno.EADDRINUSE}
"""The errors for "no free local port"; EADDRINUSE is the one for a bound source address."""

ELSEWHERE_TOO = {*_EVERYWHERE, *NO_PORT}
"""The errors that are a shortage for every kind of socket and file."""

_NOT_PERMITTED = {errno.EACCES, errno.EPERM}
_NO_ROUTE = {errno.ENETUNREACH, errno.ENETDOWN, errno.EAFNOSUPPORT}

_RESOLVING = re.compile(r"(?:tls|ssl|tcp):(?:host=)?(?P<host>\[[^\]]*\]|(?:[^:\\]|\\.)+)")


def shortage_of(number: int | None, endpoint: str = "the server") -> Shortage | None:
    """
    The shortage behind the error `number` of a connect to `endpoint`; ``None`` if there is none.

    :param number: an errno.
    :param endpoint: an upstream server, in the form of `UpstreamServer.endpoint`.
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
    The shortage behind an exception of the operating system or of Twisted, as `shortage_of`.

    A Twisted endpoint that resolves a name reports the error of only one of the addresses.
    "No route" to this address, an IPv6 address for example, does not explain why the others
    failed.  So this function blames the server.
    """
    if isinstance(error, LocalShortage):
        return error.shortage
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if not isinstance(number, int) or (number in _NO_ROUTE and _resolves(endpoint)):
        return None
    return shortage_of(number, endpoint)


def not_local(source: str) -> Shortage:
    """The shortage when the source address `source` is not an address of this machine."""
    return Shortage(
        f"source {source} is not an address of this machine", "add it there, or correct source"
    )


def no_source(endpoint: str) -> Shortage:
    """The shortage when no address of `source` is of the family that `endpoint` needs."""
    return Shortage(f"source has no address of the family of {endpoint}", "add one to source")


def no_look_up(why: str) -> Shortage:
    """A host name was not looked up in time, for no thread was free to do it: `why`."""
    return Shortage(why, "see the name servers, and the limit on threads (ulimit -u, TasksMax=)")


def _resolves(endpoint: str) -> bool:
    """Whether the endpoint may try several addresses and report the error of only one."""
    found = _RESOLVING.match(endpoint)
    return found is not None and not is_address(re.sub(r"[\\\[\]]", "", found["host"]))
