"""
The values that all parts of evproxy share: frozen and comparable; no I/O, reactor or clock.

The words are those of ``docs/architecture.md``: a *session* is one proxied
connection between a *downstream* peer (the client) and an *upstream* peer (the
server).
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from evproxy.config.canonical import server_name
from evproxy.config.declare import check_value, setting
from evproxy.config.descriptions import ClientDescription
from evproxy.config.rules import MOST_SESSIONS, Flag, Many, Matching, Text, Whole
from evproxy.errors import SettingsError
from evproxy.wire.proxy_protocol import ProxyHeader


class _HashedById(enum.Enum):
    """An enum with a fast hash: each session uses members as keys, and each is a singleton."""

    __hash__ = object.__hash__


class Phase(_HashedById):
    """The state of a session.  Only `evproxy.session.session` changes it."""

    ACCEPTED = "accepted"
    INSPECTING = "inspecting"
    CONNECTING = "connecting"
    RELAYING = "relaying"
    CLOSING = "closing"
    CLOSED = "closed"


class Side(_HashedById):
    """Who caused an event: one of the two peers, or evproxy itself."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    PROXY = "proxy"


class Ending(_HashedById):
    """How a session ended."""

    FINISHED = "finished"
    """Both streams ended in order; evproxy delivered every byte."""
    RESET = "reset"
    """A peer reset its connection, the connection broke, or a wrapper on that side closed it."""
    LEFT = "left"
    """The client left before evproxy was connected to an upstream server."""
    UNREACHABLE = "unreachable"
    """evproxy could not connect to any upstream server."""
    IDLE = "idle"
    """No byte moved for the idle timeout."""
    HALF_CLOSE = "half-close"
    """One stream had ended and no byte moved on the other for the half-close timeout."""
    DRAIN = "drain"
    """The session was still running at the drain deadline."""
    SERVER_DOWN = "server-down"
    """The upstream server went down, and its pool resets the sessions of such servers."""
    REFUSED = "refused"
    """The client was refused: by its router, by its address, or for a wrong PROXY header."""
    HANDSHAKE = "handshake"
    """The TLS handshake failed, or the client did not send what its pool depends on in time."""
    REQUESTED = "requested"
    """A program or an operator asked for the end of the session."""
    FAULT = "fault"
    """A fault that was injected ended the session."""
    ERROR = "error"
    """evproxy or a user's hook raised an exception."""


@frozen(slots=True)
class CloseReason:
    """
    Why a session ended.  Every session has exactly one.

    `by` says who ended the session, `how` in which way, and `phase` in which state.  `code` has
    the three as words, such as ``proxy idle relaying``; the words stay the same from release to
    release.
    """

    by: Side
    how: Ending
    phase: Phase
    code: str = field(init=False, eq=False, repr=False)

    @code.default
    def _code(self) -> str:
        return f"{self.by.value} {self.how.value} {self.phase.value}"

    def __str__(self) -> str:
        return f"{self.by.value} {self.how.value} while {self.phase.value}"


@lru_cache(maxsize=256)
def close_reason(by: Side, how: Ending, phase: Phase) -> CloseReason:
    """The shared `CloseReason` of these values: sessions end often, but there are few reasons."""
    return CloseReason(by, how, phase)


@frozen(slots=True)
class TLSFacts:
    """
    What a TLS handshake that evproxy made has agreed on, and who the peer is.

    `version` and `cipher` are as OpenSSL names them: ``TLSv1.3``, ``TLS_AES_128_GCM_SHA256``.
    `server_name` is the name that the client asked for (SNI), and `protocol` is the one that was
    chosen (ALPN).  `client_subject` is the subject of the client's certificate, which is verified,
    as in RFC 4514: ``CN=alice,O=Example``, and `client_name` is the common name in it.  Each is
    empty if there is none, and escaped.
    """

    version: str
    cipher: str
    server_name: str = ""
    protocol: str = ""
    client_subject: str = ""
    client_name: str = ""


@frozen(slots=True)
class ConnectionInfo:
    """
    What is known of a client's connection: for routers and balancers.

    `peer_host` and `peer_port` are the client's address, in the form of `canonical_address`.
    For a UNIX socket they are the escaped path, often empty, and 0.  `listener` is the name of
    the listener that accepted the connection.

    Behind a PROXY header, they are the address of the client in the header.  `header` is then the
    header, and `via` is the address of the proxy that sent the header: ``HOST:PORT``.
    `header_inside_tls`: the header came inside TLS, so `tls` and `server_name` are about the proxy.

    `server_name` is the name that a TLS client asks for (SNI), if evproxy ends its TLS or a router
    has looked at that.  `tls` is what is known of TLS that evproxy ends.
    """

    peer_host: str
    peer_port: int
    listener: str = ""
    via: str = ""
    header: ProxyHeader | None = None
    server_name: str = ""
    tls: TLSFacts | None = None
    header_inside_tls: bool = False

    def with_tls(self, tls: TLSFacts) -> ConnectionInfo:
        """Return the same with what is known of TLS, as `evolve` would for more time."""
        return ConnectionInfo(
            self.peer_host,
            self.peer_port,
            self.listener,
            self.via,
            self.header,
            tls.server_name,
            tls,
            self.header_inside_tls,
        )


@frozen(slots=True)
class UpstreamServer:
    """
    One upstream server, as configured or discovered.

    `name` is the server's name in logs and metrics; `server_name` derives it from the endpoint.
    `client_endpoint` is an ``IStreamClientEndpoint`` that connects to the server; then `endpoint`
    is only its name, see `upstream_server`.
    """

    endpoint: str = setting(
        ClientDescription(),
        "Where to connect: a host and a port, or any Twisted client endpoint description "
        "(`tcp:…`, `unix:…`, `tls:…`, any plugin's).",
        # `dialer_for` checks the endpoint and has the better error message.
        checked=False,
    )
    weight: int = setting(
        Whole(0, 256),
        "The server's share of the sessions, relative to the other servers. 0: no new sessions.",
        default=1,
    )
    backup: bool = setting(
        Flag(), "Whether the server is used only while no other server is usable.", default=False
    )
    max_sessions: int = setting(
        Whole(0, MOST_SESSIONS),
        "The most sessions on the server at a time. 0: no limit.",
        default=0,
    )
    priority: int = setting(
        Whole(0, 65535),
        "The server's tier: servers of a higher number are used only while no server of a lower "
        "number is usable, as in DNS SRV.",
        default=0,
    )
    send_proxy_protocol: int | None = setting(
        Whole(0, 2),
        "The version of the PROXY header that evproxy sends to this server first. 0: no header.",
        default=None,
        default_shown="the pool's",
    )
    tags: tuple[str, ...] = setting(
        Many(
            "an array of tags",
            Matching("a tag: 1 to 64 letters, digits and _ . : = / + -", r"[\w.:=/+-]{1,64}"),
        ),
        "Words of your own, such as a zone, for balancers and for programs that read the status. "
        "evproxy itself does not use them.",
        default=(),
    )
    client_endpoint: Any = field(default=None, kw_only=True, repr=False)
    name: str = field(init=False, eq=False, repr=False)

    @name.default
    def _name(self) -> str:
        # A wrong text is refused where the server is used, with a better message.
        check_value(Text(), self.endpoint, ("endpoint",))
        return server_name(self.endpoint)


def proxy_version(server: UpstreamServer, of_pool: int) -> int:
    """The version of the PROXY header for `server` of a pool whose version is `of_pool`."""
    chosen = server.send_proxy_protocol
    return of_pool if chosen is None else chosen


def upstream_server(given: Any) -> UpstreamServer:
    """
    `given`, or a server with the endpoint `given`.

    A client endpoint object is named after what it says of itself: ``endpoint:`` and its `repr`.

    :param given: a server, an address, or an ``IStreamClientEndpoint``.
    :raises SettingsError: if it is none of these.
    """
    if isinstance(given, UpstreamServer):
        return given
    if isinstance(given, str):
        return UpstreamServer(given)
    if not callable(getattr(given, "connect", None)):
        raise SettingsError(
            "upstreams: expected an address, an UpstreamServer or an IStreamClientEndpoint, "
            f"got {given!r}"
        )
    said = repr(given).strip("<>")
    if " object at 0x" in said:
        said = f"{type(given).__name__} at {id(given):#x}"
    return UpstreamServer(f"endpoint:{said}", client_endpoint=given)
