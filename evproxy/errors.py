"""The errors that evproxy raises, each with a message fit to be shown to a user as it is."""

from __future__ import annotations


class EvproxyError(Exception):
    """The base of every error that evproxy raises on purpose."""


class SettingsError(EvproxyError):
    """A setting is wrong.  The message is one line that names the setting and what was expected."""


class NoServerAvailable(EvproxyError):
    """A pool has no server that a session could be connected to now."""


class BalancerFailed(EvproxyError):
    """A balancer of a user's own raised, or gave what is no server of its pool."""


class ConnectTimeout(EvproxyError):
    """An upstream server did not answer within the connect timeout."""


class HandshakeFailed(EvproxyError):
    """The TLS handshake with an upstream server failed."""
