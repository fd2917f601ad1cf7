"""
The bounds on sessions and on pipes that follow from the limit on open files.
"""

from __future__ import annotations

import resource
import sys

from evproxy.engine.pipes import MOST as MOST_PIPES

RESERVED_FILES = 64
"""Descriptors left for everything but sessions and pipes: listeners, logs, health checks."""


def open_file_limit() -> int:
    """Return how many descriptors this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def sessions_for(open_files: int, copies: int = 0) -> int:
    """
    Return the bound on sessions for a limit of `open_files` descriptors, two for each.

    :param copies: how many copies mirrors may make at once, with a descriptor each; they get at
        most a quarter of the descriptors.
    """
    copies = min(copies, open_files // 4)
    return max(1, (open_files - RESERVED_FILES - copies - 2 * pipes_for(open_files)) // 2)


def pipes_for(open_files: int) -> int:
    """Return the bound on pipes, which use at most an eighth of `open_files` descriptors."""
    return min(MOST_PIPES, open_files // 16)
