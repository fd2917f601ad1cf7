"""
The bounds on recordings of sessions.
"""

from __future__ import annotations

FORMATS = ("json", "pcapng")
"""The formats of recordings."""

MAX_FILES = 1000
"""How many recordings a directory may have, by default."""

MAX_BYTES = 1024**3
"""How many bytes the recordings of a directory may have, by default."""

MOST_FILES = 100_000
"""The most recordings that a setting may allow: the directory is read each second."""

MOST_BYTES = 2**50
"""The most bytes that a setting may allow."""
