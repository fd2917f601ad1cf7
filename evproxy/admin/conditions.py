"""
The names of the conditions that a request can wait for.
"""

from __future__ import annotations

NO_SESSIONS = "no-sessions"

CONDITIONS = (
    *("server-up", "server-down", "server-drained", "server-idle", "server-gone"),
    NO_SESSIONS,
)
"""Those of one server, and that of the whole proxy."""
