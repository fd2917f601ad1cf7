"""The errors that evproxy raises.  Their messages are written for users."""

from __future__ import annotations

from attrs import frozen


class EvproxyError(Exception):
    """The base class of every error that evproxy raises on purpose."""


class SettingsError(EvproxyError):
    """A setting is wrong.  The message is one line: the setting, and the value it expects."""


class CannotOpenLog(EvproxyError):
    """The destination of an access log cannot be opened.  The message is one line."""


class CannotTakeOver(EvproxyError):
    """The listening sockets of the process before cannot be taken over.  The message is a line."""


class NoServerAvailable(EvproxyError):
    """No server of a pool can take a session now."""


class QueueFull(NoServerAvailable):
    """Every server of a pool is full, and no more sessions may wait."""


class QueueTimeout(NoServerAvailable):
    """A session waited for a server of a pool for too long."""


class Refused(EvproxyError):
    """
    A router refuses a client.

    The message is the reason that the session ends with.
    """


class ClientEnded(EvproxyError):
    """A client ended its stream before it had sent what evproxy waited for."""


class BalancerFailed(EvproxyError):
    """A user's own balancer raised an exception, or yielded something that is not in its pool."""


class StageFailed(EvproxyError):
    """A user's own stages or filters are of a wrong type, or return something of a wrong type."""


class ConnectTimeout(EvproxyError):
    """An upstream server did not answer within the connect timeout."""


@frozen(slots=True)
class Shortage:
    """
    A resource that evproxy or its machine lacks, which prevents a connect.

    No server is at fault.  `what` says what is missing; `remedy` names the limit to raise, or
    where to look.  `everywhere` is true if connects to other servers would fail as well.
    """

    what: str
    remedy: str
    everywhere: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


class LocalShortage(EvproxyError, OSError):
    """A connect failed because of a `Shortage`: the server is not at fault."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(str(shortage))
        self.shortage = shortage


class HandshakeFailed(EvproxyError):
    """The TLS handshake with an upstream server failed."""


class ProxyHeaderError(EvproxyError, ValueError):
    """Bytes are not a PROXY header, or a header cannot be written.  The message is one line."""


class ClientHelloError(EvproxyError):
    """What begins like TLS is not a sound ClientHello.  The message is one printable line."""


class PostgresError(EvproxyError):
    """What a client sends first is not PostgreSQL.  The message is one printable line."""


class HttpHostError(EvproxyError):
    """The host of an HTTP/1 request is missing or ambiguous.  The message is one printable line."""
