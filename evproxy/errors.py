"""The errors that evproxy raises, each with a message fit to be shown to a user as it is."""

from __future__ import annotations

from attrs import frozen


class EvproxyError(Exception):
    """The base of every error that evproxy raises on purpose."""


class SettingsError(EvproxyError):
    """A setting is wrong.  The message is one line that names the setting and what was expected."""


class CannotOpenLog(EvproxyError):
    """What an access log is to be written to cannot be opened.  The message is one line."""


class NoServerAvailable(EvproxyError):
    """A pool has no server that a session could be connected to now."""


class BalancerFailed(EvproxyError):
    """A balancer of a user's own raised, or gave what is no server of its pool."""


class ConnectTimeout(EvproxyError):
    """An upstream server did not answer within the connect timeout."""


@frozen(slots=True)
class Shortage:
    """
    Something that evproxy or its machine lacks, so that a connection could not be made.

    No server is to blame for it.  `what` is missing, and `remedy` names the limit to raise,
    or where to look.  `everywhere`: connections to other servers lack it as well.
    """

    what: str
    remedy: str
    everywhere: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


class LocalShortage(EvproxyError, OSError):
    """A connection lacks something that is evproxy's own: the server is not to blame."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(str(shortage))
        self.shortage = shortage


class HandshakeFailed(EvproxyError):
    """The TLS handshake with an upstream server failed."""
