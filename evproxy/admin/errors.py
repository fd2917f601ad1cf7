"""
The error of an admin interface that cannot listen.
"""

from __future__ import annotations

from twisted.internet.error import CannotListenError


class AdminCannotListen(CannotListenError):
    """The admin interface cannot listen; no listener of the proxy is bound then."""
