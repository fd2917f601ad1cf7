"""Why a session got no server, as codes: the words of logs and metrics."""

from __future__ import annotations

import enum


class Cause(enum.Enum):
    """
    What kept a session from its server: a code beside the text of its error.

    If a listener refused the client, the cause is the value of an `evproxy.policy.refusal.Refusal`.
    """

    PROXY_HEADER = "proxy-header"
    """The client's PROXY header was missing or wrong."""
    TLS = "tls"
    """The TLS handshake with the client failed."""
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    """The client did not send in time what evproxy waited for."""
    ROUTER = "router"
    """The router refused the client, chose no pool, or failed."""
    ROUTER_TIMEOUT = "router-timeout"
    """The router did not choose a pool in time."""
    NO_SERVER = "no-server"
    """No server of the pool was available."""
    QUEUE_FULL = "queue-full"
    """Every server was full, and the queue of the pool too."""
    QUEUED = "queued"
    """The session ended while it waited in the queue of the pool."""
    QUEUE_TIMEOUT = "queue-timeout"
    """The session waited in the queue of the pool for too long."""
    CONNECT_FAILED = "connect-failed"
    """The last server that evproxy tried could not be reached, or did not accept."""
    CONNECT_TIMEOUT = "connect-timeout"
    """The last server that evproxy tried did not answer in time."""
    SHORTAGE = "shortage"
    """evproxy or its machine lacked something, such as a port or a descriptor."""
    EXCEPTION = "exception"
    """evproxy or a user's hook raised an exception."""
